import { link, mkdir, mkdtemp, open, rm, symlink } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import { expect, test } from "vitest"
import { inFileWords } from "./file-words.ts"
import type { RestoreOrder } from "./orders.ts"

/** A host with the directories of a VM and of a payload, and the order that builds one from the other. */
async function host() {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-words-"))
  const [vm, payload] = [join(dataDir, "instances/vm/1"), join(dataDir, "payload")]
  for (const dir of [vm, payload]) await mkdir(dir, { recursive: true })
  const order = { kind: "restore", dataDir, instanceId: "vm", generation: 1, payloadDir: payload }
  const said = async (work: Promise<unknown>): Promise<unknown> =>
    inFileWords(await work.catch((error: unknown) => error), order as RestoreOrder)
  return { vm, payload, said, [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true }) }
}

test("a file that is missing is named, with the directory that it is missing in", async () => {
  await using place = await host()
  const { vm, payload, said } = place

  expect(await said(link(join(payload, "disk0.base"), join(vm, "disk0.base")))).toMatchObject({
    code: "corrupted",
    message: "disk0.base is missing; bring it back from a backup",
  })
  expect(await said(open(join(vm, "kernel")))).toMatchObject({
    code: "corrupted",
    message: expect.stringMatching(/^kernel in the VM's directory is missing; bring it back/),
  })
})

test("a link in a file's place is named, also where an adapter has wrapped the system's error", async () => {
  await using place = await host()
  await symlink("nowhere", join(place.vm, "vm.json"))
  const refused = open(join(place.vm, "vm.json"), "wx").catch((error: unknown) => {
    throw toStillframeError(error)
  })

  expect(await place.said(refused)).toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringMatching(/^vm\.json in the VM's directory is a link or special file\. /),
  })
})

test("nothing is said of a file whose directory is away, or of one elsewhere", async () => {
  await using place = await host()
  await rm(place.payload, { recursive: true })

  for (const path of [join(place.payload, "memory"), join(place.vm, "saved/memory"), "/nowhere/memory"])
    expect(await place.said(open(path))).toMatchObject({ code: "ENOENT" })
})
