import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { syncFile } from "./durable.ts"

// Root may write any file, so only a run as another user can fail.
test("a read-only file of one's own can be synced", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-durable-"))
  await writeFile(join(dir, "layer"), "content", { mode: 0o440 })

  await expect(syncFile(join(dir, "layer"))).resolves.toBeUndefined()

  await rm(dir, { recursive: true })
})
