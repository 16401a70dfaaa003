import { execFile } from "node:child_process"
import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { findQemu } from "@stillframe/hypervisors/process/find-qemu"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { expect } from "vitest"
import { firstGap, ticks, untilTicks } from "../hypervisors/test-vm.ts"
import { serial, type TestStack } from "./test-stack.ts"

const run = promisify(execFile)

export function act(stack: TestStack, { id }: InstanceResource, action: string): Promise<InstanceResource> {
  return stack.api.request("POST", `/instances/${id}/${action}`, {})
}

export function restore(
  stack: TestStack,
  instance: InstanceResource,
  { id }: SnapshotResource,
  body: object = {},
): Promise<InstanceResource> {
  return stack.api.request("POST", `/instances/${instance.id}/snapshots/${id}/restore`, body)
}

export function processOf(stack: TestStack, { id }: InstanceResource): Promise<ProcessIdentity | undefined> {
  return findQemu(`stillframe-${stack.clusterId}-${id}`)
}

/**
 * The tick after the last of `earlier`, without a gap from there on, and the same sum over the guest's
 * memory.
 */
export async function expectGoesOn(dir: string, earlier: string): Promise<void> {
  await untilTicks(dir, 4)
  const printed = await serial(dir)
  const whole = printed.slice(printed.indexOf("\n") + 1)
  const before = ticks(earlier)
  const [first] = ticks(whole)
  expect(firstGap(whole)).toBeUndefined()
  expect(first?.sum).toBe(before.at(-1)?.sum)
  expect(first?.tick).toBeGreaterThan(before.at(-1)?.tick ?? Infinity)
  expect(first?.tick).toBeLessThanOrEqual((before.at(-1)?.tick ?? 0) + 2)
}

export async function withDisk(stack: TestStack, name: string): Promise<InstanceResource> {
  const path = join(stack.imagesDir, `${name}.raw`)
  await writeFile(path, Buffer.alloc(1024 * 1024, 7))
  return stack.launch(name, { image: "heartbeat", disks: [{ path, format: "raw" }] })
}

/** With a raw disk, a qcow2 one, and a raw one that is only read. */
export async function withDisks(stack: TestStack, name: string): Promise<InstanceResource> {
  const path = join(stack.imagesDir, `${name}.raw`)
  const qcow2 = join(stack.imagesDir, `${name}.qcow2`)
  await writeFile(path, Buffer.alloc(1024 * 1024, 7))
  await writeFile(`${path}.2`, Buffer.alloc(1024 * 1024, 7))
  await run("qemu-img", ["create", "-q", "-f", "qcow2", qcow2, "2M"])
  return stack.launch(name, {
    image: "heartbeat",
    disks: [
      { path: `${path}.2`, format: "raw" },
      { path: qcow2, format: "qcow2" },
      { path, format: "raw", readonly: true },
    ],
  })
}

/** Writes to the disk of a VM that does not run, as its guest would have. */
export async function writeToDisk(stack: TestStack, dir: string, pattern: number): Promise<void> {
  const content = join(stack.imagesDir, `pattern-${pattern}`)
  await writeFile(content, Buffer.alloc(1024 * 1024, pattern))
  await run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "qcow2", content, join(dir, await topOf(dir))])
}

/** The bytes of the disk, each that there is once. */
export async function diskHolds(stack: TestStack, dir: string): Promise<number[]> {
  const content = join(stack.imagesDir, "read-back")
  await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", join(dir, await topOf(dir)), content])
  return [...new Set(await readFile(content))]
}

async function topOf(dir: string): Promise<string> {
  const numbers = (await readdir(dir)).map((name) => Number(/^disk0\.(\d+)\.qcow2$/.exec(name)?.[1] ?? -1))
  return `disk0.${Math.max(...numbers)}.qcow2`
}
