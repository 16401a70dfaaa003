import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { launchGrowth, openLaunchFiles } from "./launch-files.ts"

const mib = 1024 ** 2
const gib = 1024 ** 3

test.each([
  { over: "an overlay or a clone", asCopies: false, grows: gib },
  { over: "a copy", asCopies: true, grows: gib - 8 * mib },
])("a disk that a launch writes may grow as $over by $grows bytes", async ({ asCopies, grows }) => {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-launch-files-"))
  try {
    const disks = ["written", "read"].map((name) => ({
      path: join(dir, name),
      format: "raw" as const,
      readonly: name === "read",
    }))
    for (const { path } of disks) {
      await writeFile(path, Buffer.alloc(8 * mib, 7))
      await truncate(path, gib)
    }
    const rules = { hostPaths: [dir], dataDir: join(dir, "data") }
    await using files = await openLaunchFiles({ memoryMib: 16, vcpus: 1, disks }, rules)

    expect(await launchGrowth(files, { asCopies })).toBe(grows)
  } finally {
    await rm(dir, { recursive: true })
  }
})
