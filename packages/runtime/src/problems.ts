import type { Problem } from "@stillframe/domain/problem"
import type { Logger } from "./logger.ts"

/** The problems that a process has at present, each under a key of its finder's own. */
export interface Problems {
  /** Undefined ends the problem. The log tells its begin and its end once each. */
  set(key: string, problem: Problem | undefined): void
  list(): readonly Problem[]
  /** Calls `listener` after each change, until the returned function is called. */
  listen(listener: () => void): () => void
}

export function openProblems(log: Logger): Problems {
  const current = new Map<string, Problem>()
  const listeners = new Set<() => void>()
  return {
    set(key, problem) {
      const before = current.get(key)
      if (before?.code === problem?.code && before?.message === problem?.message) return
      if (problem === undefined) current.delete(key)
      else current.set(key, problem)
      if (before?.code !== problem?.code) tell(log, key, before, problem)
      for (const listener of listeners) listener()
    },
    list: () => [...current.values()],
    listen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

function tell(log: Logger, key: string, before: Problem | undefined, problem: Problem | undefined): void {
  if (problem !== undefined) log.error({ problem: key, code: problem.code }, problem.message)
  else log.info({ problem: key, code: before?.code }, "problem is over")
}
