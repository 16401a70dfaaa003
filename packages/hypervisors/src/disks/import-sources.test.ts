import { link, mkdir, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { sourceFacts } from "./disks.ts"
import { hostImages } from "./image-store.ts"
import { importSources } from "./import-sources.ts"

test("a file of an attached VM is not read through a directory that became a link", async () => {
  await using opened = new AsyncDisposableStack()
  const root = await mkdtemp(join(tmpdir(), "stillframe-sources-"))
  opened.defer(() => rm(root, { recursive: true }))
  const [owner, outside, data, dir] = ["owner", "outside", "data", "payload"].map((name) => join(root, name))
  for (const folder of [owner, outside, data, dir]) await mkdir(folder ?? "")
  const path = join(owner ?? "", "disk.raw")
  await writeFile(path, Buffer.alloc(4096, 7))
  const source = { path, ...(await sourceFacts(path)) }
  // It has the same size, time and number, as another file system may have one.
  await link(path, join(outside ?? "", "disk.raw"))
  await rename(owner ?? "", join(root, "away"))
  await symlink("outside", owner ?? "")
  const disk = {
    readonly: true,
    virtualSize: 4096,
    layers: [{ file: path, format: "raw" as const }],
    sources: [source],
  }
  const place = {
    from: root,
    dir: dir ?? "",
    store: hostImages(data ?? ""),
    signal: new AbortController().signal,
  }

  await expect(importSources([disk], place)).rejects.toMatchObject({ code: "conflict" })

  expect(await readdir(dir ?? "")).toEqual([])
  expect((await stat(path)).size).toBe(4096)
})
