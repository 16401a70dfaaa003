import { execFile } from "node:child_process"
import { copyFile, link, mkdtemp, rename, rm, utimes, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, test } from "vitest"
import { assertSourcesUnchanged, sourceFacts, type Disk } from "./disks.ts"

const run = promisify(execFile)

/** A VM of an earlier version, whose disk is a caller's file that was never hashed. */
async function earlierVm({ linked }: { linked: boolean }) {
  await using opened = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-sources-"))
  opened.defer(() => rm(dir, { recursive: true }))
  const path = join(dir, "the owner's disk.raw")
  await writeFile(path, "content")
  if (linked) await link(path, join(dir, "disk0.base"))
  const source = { path, ...(linked && { link: "disk0.base" }), ...(await sourceFacts(path)) }
  const disk: Disk = { readonly: false, virtualSize: 512, layers: [], sources: [source] }
  const resources = opened.move()
  return {
    path,
    refusal: async (): Promise<string> => {
      const refused = (error: unknown): string => (error as Error).message
      return await assertSourcesUnchanged(dir, [disk]).then(() => "none", refused)
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

test.each([{ linked: true }, { linked: false }])(
  "a file that was only touched is refused with the command by which its owner accepts it: $linked",
  async ({ linked }) => {
    await using vm = await earlierVm({ linked })
    await utimes(vm.path, 1, 1)

    const refusal = await vm.refusal()

    expect(refusal).toMatch(/was changed, by its modification time.*if its content is as it was, say so/)
    const command = /touch -m -d .*(?=; if not)/.exec(refusal)?.[0] ?? "false"
    await run("sh", ["-c", command])
    expect(await vm.refusal()).toBe("none")
  },
)

test("a file of another size, or another file in its place, cannot be accepted by its time", async () => {
  await using grown = await earlierVm({ linked: true })
  await writeFile(grown.path, "more content")
  expect(await grown.refusal()).toMatch(/from 7 bytes to 12.*restore the instance from a snapshot/)

  await using replaced = await earlierVm({ linked: false })
  await copyFile(replaced.path, `${replaced.path}.copy`)
  await rename(`${replaced.path}.copy`, replaced.path)
  expect(await replaced.refusal()).toMatch(/was replaced by another file.*bring back the file itself/)
})
