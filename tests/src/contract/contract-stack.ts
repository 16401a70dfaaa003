import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { expect } from "vitest"
import type { Ask, Reply } from "../api/test-api.ts"
import type { TestStack } from "../pipeline/test-stack.ts"

/**
 * Asks for a snapshot and waits for its capture, as the contract's own create does: 201 is then its success.
 */
export function create(stack: TestStack, instance: string, body: object = {}, ask: Ask = {}): Promise<Reply> {
  const headers = { prefer: "wait=55", ...ask.headers }
  return stack.ask("POST", `/instances/${instance}/snapshots`, {
    ...ask,
    headers,
    body: { kind: "Standby", ...body },
  })
}

/** A snapshot that is captured. */
export async function captured(
  stack: TestStack,
  instance: string,
  body: object = {},
): Promise<SnapshotResource> {
  const reply = await create(stack, instance, body)
  expect([reply.status, reply.text]).toEqual([201, expect.stringContaining('"ready"')])
  return reply.body
}

/** A guest that has run and was then brought to `state` by the API. */
export async function launchInto(
  stack: TestStack,
  name: string,
  state: "Stopped" | "Standby",
): Promise<InstanceResource> {
  const { id } = await stack.launch(name)
  const instance = await move(stack, id, state === "Stopped" ? "stop" : "standby")
  expect(instance.state).toBe(state)
  return instance
}

export function move(
  stack: TestStack,
  instance: string,
  verb: "stop" | "start" | "standby" | "restore",
): Promise<InstanceResource> {
  return stack.api.request("POST", `/instances/${instance}/${verb}`, verb === "start" ? {} : undefined)
}

export async function stateOf(stack: TestStack, instance: string): Promise<string> {
  return (await stack.ask("GET", `/instances/${instance}`)).body.state
}

/** Where the process of the instance's present life works: each life has a directory of its own. */
export async function lifeDir(stack: TestStack, id: string): Promise<string> {
  const { generation } = await stack.db
    .selectFrom("instances")
    .select("generation")
    .where("id", "=", id)
    .executeTakeFirstOrThrow()
  return stack.generationDir({ id }, generation)
}
