import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { setTimeout as delay } from "node:timers/promises"

/**
 * What a piece of work took: wall time, and the processors' time of this process and of the commands it
 * waited for.
 */
export interface Cost {
  readonly ms: number
  readonly cpuMs: number
}

export async function costOf(work: () => unknown): Promise<Cost> {
  const cpu = cpuMs()
  const start = performance.now()
  await work()
  return { ms: performance.now() - start, cpuMs: cpuMs() - cpu }
}

export function sum(first: Cost, second: Cost): Cost {
  return { ms: first.ms + second.ms, cpuMs: first.cpuMs + second.cpuMs }
}

/** Fields 14 to 17 of proc(5)'s stat, in ticks of 10 ms. */
function cpuMs(): number {
  const stat = readFileSync("/proc/self/stat", "utf8")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return 10 * fields.slice(11, 15).reduce((total, ticks) => total + Number(ticks), 0)
}

export type Command = readonly [program: string, ...args: string[]]

export function runCommand([program, ...args]: Command): void {
  execFileSync(program, args, { stdio: ["ignore", "ignore", "inherit"] })
}

/**
 * The most memory a command had resident, in MiB, as last seen before its end: looked up about every
 * millisecond, so growth of the last one is missed. Rejects when the command fails.
 */
export async function peakMebibytes([program, ...args]: Command): Promise<number> {
  // Not the maxRSS of a child that was waited for: Linux starts that at what its parent had.
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit"] })
  const ended = once(child, "exit")
  let kibibytes = 0
  while (child.exitCode === null && child.signalCode === null) {
    kibibytes = peakKibibytes(child.pid) ?? kibibytes
    await Promise.race([ended, delay(1)])
  }
  const [exitCode] = (await ended) as [number | null]
  if (exitCode !== 0) throw new Error(`${program} ended with ${exitCode}`)
  return Math.round(kibibytes / 1024)
}

/** Undefined when the process has ended: what is left of it has no memory. */
function peakKibibytes(pid: number | undefined): number | undefined {
  try {
    const peak = /VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
    return peak === undefined ? undefined : Number(peak)
  } catch {
    return undefined
  }
}
