import type { InstanceResource } from "@stillframe/domain/instance"
import { expect } from "vitest"
import { ticks, untilTicks } from "../hypervisors/test-vm.ts"
import { serial, type TestStack } from "./test-stack.ts"

/**
 * A fork that goes on where its snapshot stood still: the guest counts on from `tick`, and its memory has the
 * same sum. It is gone afterwards.
 */
export async function forkRuns(
  stack: TestStack,
  id: string,
  { name, source, tick }: { name: string; source: InstanceResource; tick: number },
): Promise<void> {
  const reply = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name } })
  expect([reply.status, reply.body.state]).toEqual([201, "Running"])
  const dir = stack.generationDir(reply.body)
  await untilTicks(dir, 4)
  const text = await serial(dir)
  const [resumed] = ticks(text.slice(text.indexOf("\n") + 1))
  const [first] = ticks(await serial(stack.generationDir(source)))
  expect(resumed?.sum).toBe(first?.sum)
  expect(resumed?.tick).toBeGreaterThanOrEqual(tick)
  await stack.api.request("DELETE", `/instances/${name}`)
}
