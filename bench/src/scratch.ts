import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A folder for one measurement, below `BENCH_DIR` if set. */
export interface Scratch extends Disposable {
  readonly dir: string
}

/**
 * With the folder goes every process that works in it: VMs outlive the worker that started them. Ctrl-C
 * included.
 */
export function scratch(name: string): Scratch {
  const dir = mkdtempSync(join(process.env["BENCH_DIR"] ?? tmpdir(), `bench-${name}-`))
  const clear = (): void => {
    process.off("exit", clear)
    endProcessesIn(dir)
    rmSync(dir, { recursive: true, force: true })
  }
  process.on("exit", clear)
  return { dir, [Symbol.dispose]: clear }
}

function endProcessesIn(dir: string): void {
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    try {
      if (readlinkSync(`/proc/${entry}/cwd`).startsWith(`${dir}/`)) process.kill(Number(entry), "SIGKILL")
    } catch {
      // It ended while we looked, or belongs to somebody else: not ours either way.
    }
  }
}
