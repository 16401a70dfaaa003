import { access, readdir } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, beforeAll, expect, test } from "vitest"
import { firstGap, ticks, untilTicks } from "../hypervisors/test-vm.ts"
import { serial, serialLines, untilTrue, type TestStack } from "./test-stack.ts"
import { launchOn, onAMac, stackWith } from "./vmm-stack.ts"

onAMac()

const atOnce = 6

let stack: TestStack
beforeAll(async () => {
  stack = await stackWith("cloud-hypervisor", "firecracker", "vz")
})
afterAll(() => stack[Symbol.asyncDispose]())

async function runsOn(fork: InstanceResource): Promise<void> {
  const dir = stack.generationDir(fork)
  const now = await serialLines(dir)
  await untilTrue(dir, async () => (await serialLines(dir)) >= now + 3)
}

async function isGone(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    () => true,
  )
}

test.each(["qemu", "cloud-hypervisor", "firecracker", "vz"] as const)(
  "many forks of one snapshot of %s are made at once, and outlive their source and the snapshot",
  async (hypervisor) => {
    const name = `source-${hypervisor}`
    const source = hypervisor === "qemu" ? await stack.launch(name) : await launchOn(stack, hypervisor, name)
    const { id } = await stack.snapshot(source)
    await stack.settled(id)
    const files = await readdir(await stack.payloadDir(id))
    expect(files).toContain(hypervisor === "vz" ? "machine-state.vzm" : "memory")
    expect(files.filter((name) => name.startsWith("saving"))).toEqual([])
    const [then] = ticks(await serial(stack.generationDir(source)))
    const fork = (name: string) => stack.ask("POST", `/snapshots/${id}/fork`, { body: { name } })

    const names = Array.from({ length: atOnce }, (_, index) => `fork-${index}-${hypervisor}`)
    const replies = await Promise.all(names.map(fork))

    expect(replies.map(({ status }) => status)).toEqual(names.map(() => 201))
    const forks = replies.map(({ body }): InstanceResource => body)
    const dirs = forks.map((fork) => stack.generationDir(fork))
    await Promise.all(dirs.map((dir) => untilTicks(dir, 4)))
    for (const dir of dirs) {
      const text = await serial(dir)
      const whole = text.slice(text.indexOf("\n") + 1)
      // Each on its own: none prints into another's console, and none starts from the beginning.
      expect(firstGap(whole)).toBeUndefined()
      expect(ticks(whole)[0]).toMatchObject({ sum: then?.sum })
      expect(ticks(whole)[0]?.tick).toBeGreaterThan(2)
    }

    expect((await stack.ask("DELETE", `/instances/${source.id}`)).status).toBe(204)
    const late = await fork(`late-${hypervisor}`)
    expect([late.status, late.body.state]).toEqual([201, "Running"])
    expect((await stack.ask("DELETE", `/snapshots/${id}`)).status).toBe(204)
    await expect.poll(() => isGone(join(stack.storageDir, "snapshots", id))).toBe(true)
    await Promise.all([...forks, late.body].map(runsOn))
    for (const { id } of [...forks, late.body])
      expect((await stack.ask("DELETE", `/instances/${id}`)).status).toBe(204)
  },
)
