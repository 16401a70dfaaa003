import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { createInterface } from "node:readline"

/** A line of a program's log. */
export interface LogLine {
  readonly msg: string
  readonly time: string
  readonly [field: string]: unknown
}

/** One of our apps as a process of its own. */
export interface Program extends AsyncDisposable {
  readonly pid: number
  /**
   * The first line for which this holds, already written or still to come. Rejects when the program ends
   * before.
   */
  logged(matches: (line: LogLine) => boolean): Promise<LogLine>
  /** Kills it, and resolves when it is gone. */
  kill(): Promise<void>
}

const checkout = join(import.meta.dirname, "../..")
const stopMsMax = 30_000

/** Starts `apps/<app>/src/main.ts`, before it is ready. */
export function spawnProgram(
  app: string,
  env: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): Program {
  return spawnScript(`apps/${app}/src/main.ts`, env, args)
}

function spawnScript(
  script: string,
  env: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): Program {
  const child = spawn(process.execPath, [join(checkout, script), ...args], {
    env: { ...process.env, LOG_LEVEL: "info", ...env },
    stdio: ["ignore", "ignore", "pipe"],
  })
  const ended = once(child, "close")
  const killNow = (): void => void child.kill("SIGKILL")
  process.on("exit", killNow)
  void ended.then(() => process.off("exit", killNow))
  const lines: string[] = []
  const waiting = new Set<() => void>()
  // Parsed when somebody asks: the process that measures has better things to do with a line for every
  // request.
  createInterface(child.stderr).on("line", (text) => {
    lines.push(text)
    for (const look of waiting) look()
  })
  return {
    pid: child.pid ?? 0,
    async logged(matches) {
      const found = Promise.withResolvers<LogLine>()
      let seen = 0
      const look = (): void => {
        while (seen < lines.length) {
          const line = parseLine(lines[seen++] ?? "")
          if (matches(line)) return found.resolve(line)
        }
      }
      waiting.add(look)
      look()
      const failed = ended.then(() => {
        throw new Error(`${script} ended too early:\n${lines.slice(-3).join("\n")}`)
      })
      return Promise.race([found.promise, failed]).finally(() => waiting.delete(look))
    },
    async kill() {
      child.kill("SIGKILL")
      await ended
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM")
      const late = setTimeout(() => child.kill("SIGKILL"), stopMsMax)
      await ended
      clearTimeout(late)
    },
  }
}

export function startProgram(...what: Parameters<typeof spawnProgram>): Promise<Program> {
  return whenStarted(spawnProgram(...what))
}

/** Starts a file of the checkout that logs as our apps do. */
export function startScript(...what: Parameters<typeof spawnScript>): Promise<Program> {
  return whenStarted(spawnScript(...what))
}

async function whenStarted(program: Program): Promise<Program> {
  await program.logged(({ msg }) => msg === "started")
  return program
}

function parseLine(text: string): LogLine {
  try {
    return JSON.parse(text) as LogLine
  } catch {
    // Node's own words, such as the stack of an exception.
    return { msg: text, time: "" }
  }
}
