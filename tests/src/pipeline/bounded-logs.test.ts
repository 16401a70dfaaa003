import { copyFile, readFile, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { endProcess, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { processesWith } from "@stillframe/hypervisors/process/processes-with"
import { expect, test } from "vitest"
import { processOf } from "./instance-acts.ts"
import { testStack, untilTrue, type TestStack } from "./test-stack.ts"

const chatter = join(import.meta.dirname, "../../guests/chatter.elf")
const logBytesMax = 64 * 1024

/** A VM whose guest prints without rest. */
async function launchChatter(stack: TestStack): Promise<InstanceResource> {
  const kernel = join(stack.imagesDir, "chatter.elf")
  await copyFile(chatter, kernel)
  const body = { name: "chatter", launch: { kernel, memory_mib: 16 } }
  return stack.api.request("POST", "/instances", body)
}

/** Waits for the next cut of the VM's log, and looks at what is kept. */
async function expectCut(dir: string): Promise<void> {
  const older = join(dir, "serial.log.1")
  await rm(older, { force: true })
  const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => ({ size: 0 }))).size
  await untilTrue(dir, async () => (await sizeOf(older)) === logBytesMax)
  // Without a gap: the alphabet goes on from the first byte to the last.
  const text = await readFile(older, "latin1")
  const again = "abcdefghijklmnopqrstuvwxyz".repeat(text.length / 26 + 2)
  expect(again).toContain(text)
}

async function keepersOf({ dataDir }: TestStack): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = []
  for await (const keeper of processesWith("cmdline", dataDir)) found.push(keeper)
  return found
}

test("a guest that prints without end fills no disk, with a worker, without one, and under the next", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker({ logBytesMax })
  const dir = stack.generationDir(await launchChatter(stack))
  await expectCut(dir)

  await worker[Symbol.asyncDispose]()
  await expectCut(dir)
  expect(await keepersOf(stack)).toHaveLength(1)

  const next = await stack.startCaptureWorker({ logBytesMax })
  await expect.poll(() => keepersOf(stack)).toHaveLength(1)
  const [keeper] = await keepersOf(stack)
  if (keeper !== undefined) await endProcess(keeper, { graceMs: 0 })
  await expectCut(dir)
  await next[Symbol.asyncDispose]()
})

test("what bounds the logs ends with the last VM of a host without a worker", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker({ logBytesMax })
  const vm = await processOf(stack, await launchChatter(stack))
  await worker[Symbol.asyncDispose]()
  expect(await keepersOf(stack)).toHaveLength(1)

  if (vm !== undefined) await endProcess(vm, { graceMs: 0 })
  await expect.poll(() => keepersOf(stack)).toEqual([])
})
