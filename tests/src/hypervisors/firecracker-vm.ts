import { readFileSync } from "node:fs"
import { cp, copyFile, link, mkdir, readdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import type { VmControl } from "@stillframe/hypervisors/file-vmm/vm-control"
import { firecrackerControl } from "@stillframe/hypervisors/firecracker/control"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { expect } from "vitest"
import { violations, type Exchange } from "./firecracker-spec.ts"
import { heartbeat, never, untilTicks, type Ground } from "./test-vm.ts"

export interface FirecrackerVm {
  dir: string
  config: GuestConfig
  disks: Disk[]
  process: ProcessIdentity
  control: VmControl
}

export const guest: GuestConfig = { memoryMib: 16, vcpus: 1, kernel: heartbeat, disks: [] }

const fake = fileURLToPath(import.meta.resolve("@stillframe/testing/fakes/firecracker"))
const mib = 1024 ** 2

/** A program that is the stand-in for one version of Firecracker, as a host would be told of it. */
export async function fakeFirecracker({ root }: Ground, version = "1.16.1"): Promise<string> {
  const path = join(root, `firecracker-${version}`)
  const cache = `NODE_COMPILE_CACHE=${process.env["NODE_COMPILE_CACHE"] ?? ""}`
  const command = ["/usr/bin/env", cache, process.execPath, fake, "--fake-version", version, "--record"]
  const words = command.map((word) => `'${word}'`)
  await writeFile(path, `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`, { mode: 0o755 })
  return path
}

export interface StartOptions {
  name?: string
  runAs?: { uid: number; gid: number }
  /** Of the VM's one writable disk; none without. */
  disk?: string
}

/** A guest that has ticked. */
export async function startVm(
  place: Ground,
  binary: string,
  { name = "vm", runAs, disk }: StartOptions = {},
): Promise<FirecrackerVm> {
  const dir = await place.folder(name)
  await copyFile(heartbeat, join(dir, "kernel"))
  if (disk !== undefined) await writeFile(join(dir, "disk0.raw"), Buffer.alloc(mib, disk))
  const disks = disk === undefined ? [] : [rawDisk]
  const launch = { dir, binary, config: guest, disks, identity: "stillframe-test-vm", signal: never }
  const process = place.own(await firecracker.launch({ ...launch, ...(runAs !== undefined && { runAs }) }))
  await firecracker.begin(dir, guest)
  await untilTicks(dir, 3)
  return { dir, config: guest, disks, process, control: firecracker.control(dir, guest) }
}

const rawDisk: Disk = {
  readonly: false,
  virtualSize: mib,
  layers: [{ file: "disk0.raw", format: "raw" }],
  sources: [],
}

/** A save of a VM that is paused for it and goes on, and what its guest had printed when it stood still. */
export async function capture(
  place: Ground,
  { dir, control }: FirecrackerVm,
  name = "payload",
): Promise<{ payload: string; printed: string }> {
  const payload = await place.folder(name)
  await control.pause()
  await control.save(payload, { signal: never })
  const printed = readFileSync(join(dir, "serial.log"), "latin1")
  if ((await readdir(dir)).includes("disk0.raw"))
    await copyFile(join(dir, "disk0.raw"), join(payload, "disk0.raw"))
  await control.resume()
  return { payload, printed }
}

/** A VM from a payload, in a directory of its own, paused. */
export async function restoreVm(
  place: Ground,
  binary: string,
  payload: string,
  { name = "fork", runAs }: StartOptions = {},
): Promise<FirecrackerVm> {
  const dir = await place.folder(name)
  const saved = join(dir, "saved")
  await mkdir(saved)
  for (const file of ["vmstate", "memory"]) await link(join(payload, file), join(saved, file))
  const disks = (await readdir(payload)).includes("disk0.raw") ? [rawDisk] : []
  if (disks.length > 0) await cp(join(payload, "disk0.raw"), join(dir, "disk0.raw"))
  const launch = { dir, binary, config: guest, disks, identity: "stillframe-test-fork", signal: never, saved }
  const process = place.own(await firecracker.restore({ ...launch, ...(runAs !== undefined && { runAs }) }))
  return { dir, config: guest, disks, process, control: firecracker.control(dir, guest) }
}

/** What goes wrong from now on in the stand-in behind a VM. */
export async function setFault({ dir }: { dir: string }, fault: Record<string, string>): Promise<void> {
  await writeFile(join(dir, "fault.json"), JSON.stringify(fault))
}

export async function clearFault({ dir }: { dir: string }): Promise<void> {
  await rm(join(dir, "fault.json"))
}

/** A control that does not wait long for an answer. */
export const impatient = ({ dir, config }: FirecrackerVm, withinMs = 300): VmControl =>
  firecrackerControl(dir, config, withinMs)

/**
 * Until the stand-in behind a VM has been sent these requests, one after the other and others between, since
 * it was started.
 */
export async function untilReceived({ dir }: { dir: string }, ...requests: string[]): Promise<void> {
  const inOrder = new RegExp(requests.map((request) => `^${request}$`).join(".*"), "ms")
  await expect.poll(() => readFileSync(join(dir, "received.log"), "utf8")).toMatch(inOrder)
}

/**
 * All that was asked of the stand-ins below a folder, each checked against the official description of its
 * version.
 */
export async function expectDescribed({ root }: Ground): Promise<Exchange[]> {
  const names = (await readdir(root, { recursive: true })).filter((name) => name.endsWith("exchanges.jsonl"))
  const exchanges = names.flatMap((name) =>
    readFileSync(join(root, name), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Exchange),
  )
  expect(exchanges.flatMap(violations)).toEqual([])
  return exchanges
}
