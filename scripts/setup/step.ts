import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"

/** Does one step of the set-up and prints what it brought: MB are 10^6 bytes on disk. */
export function step(title: string, path: string, work: () => void): void {
  const startedMs = performance.now()
  work()
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  console.error(`  ${title}: ${(bytesOf(path) / 1e6).toFixed(1)} MB on disk, ${seconds} s`)
}

function bytesOf(path: string): number {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats?.isDirectory()) return stats?.size ?? 0
  const entries = readdirSync(path, { withFileTypes: true })
  return entries
    .filter((entry) => !entry.isSymbolicLink())
    .reduce((sum, entry) => sum + bytesOf(join(path, entry.name)), 0)
}
