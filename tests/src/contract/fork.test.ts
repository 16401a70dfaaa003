import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, beforeAll, expect, test } from "vitest"
import { statuses, type Reply } from "../api/test-api.ts"
import { firstGap, ticks, untilTicks } from "../hypervisors/test-vm.ts"
import { diskHolds, withDisk, writeToDisk } from "../pipeline/instance-acts.ts"
import { serial, serialLines, testStack, type TestStack } from "../pipeline/test-stack.ts"
import { captured, launchInto, lifeDir, move } from "./contract-stack.ts"

const run = promisify(execFile)

let stack: TestStack
let source: InstanceResource
let standby: string
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  source = await stack.launch("source")
  standby = (await captured(stack, source.id)).id
})
afterAll(() => stack[Symbol.asyncDispose]())

function fork(snapshot: string, body?: unknown): Promise<Reply> {
  return stack.ask("POST", `/snapshots/${snapshot}/fork`, { body })
}

async function end(...names: string[]): Promise<void> {
  for (const name of names) expect((await stack.ask("DELETE", `/instances/${name}`)).status).toBe(204)
}

test("case 56: a fork has a name by the rule of all names, and its snapshot is found by its exact id only", async () => {
  for (const body of [
    undefined,
    {},
    ...["Abc", "-a", "a-", "a_b", "x".repeat(64), ""].map((name) => ({ name })),
  ]) {
    const { status, body: error } = await fork(standby, body)
    expect([status, error.code], `for ${JSON.stringify(body)}`).toEqual([400, "Bad Request"])
  }
  for (const unknown of ["a".repeat(24), standby.slice(0, 12), "%00"]) {
    const { status, body } = await fork(unknown, { name: "copy" })
    expect([status, body]).toEqual([404, { code: "not_found", message: "snapshot not found" }])
  }
})

test("case 57: a fork of a Standby snapshot is a new running instance of the given name, which goes on where it stood still", async () => {
  const { status, body, headers } = await fork(standby, { name: "copy" })

  expect([status, body.name, body.state, body.hypervisor]).toEqual([201, "copy", "Running", "qemu"])
  expect(body.id).toMatch(/^[a-z][a-z0-9]{23}$/)
  expect(body.id).not.toBe(source.id)
  expect(body).toHaveProperty("expires_at", null)
  expect(headers.get("location")).toBe(`/instances/${body.id}`)
  const dir = stack.generationDir(body)
  await untilTicks(dir, 4)
  const printed = await serial(dir)
  expect(firstGap(printed.slice(printed.indexOf("\n") + 1))).toBeUndefined()
  expect(ticks(printed)[1]?.sum).toBe(ticks(await serial(stack.generationDir(source)))[0]?.sum)
  await end("copy")
})

test("case 57: a fork of a Stopped snapshot is Stopped, with the disk of the snapshot, and runs if asked to", async () => {
  const origin = await withDisk(stack, "origin")
  await move(stack, origin.id, "stop")
  await writeToDisk(stack, stack.generationDir(origin), 1)
  const { id } = await captured(stack, origin.id, { kind: "Stopped" })

  const still = await fork(id, { name: "still" })
  expect([still.status, still.body.state]).toEqual([201, "Stopped"])
  expect(await diskHolds(stack, await lifeDir(stack, still.body.id))).toEqual([1])
  const running = await fork(id, { name: "running", target_state: "Running" })
  expect([running.status, running.body.state]).toEqual([201, "Running"])
  await untilTicks(await lifeDir(stack, running.body.id), 3)
  const asleep = await fork(id, { name: "asleep", target_state: "Standby" })
  expect([asleep.status, asleep.body.code]).toEqual([400, "invalid_request"])
  await end("origin", "still", "running")
})

test("case 57: a fork of a Standby snapshot is put into the state that is asked for", async () => {
  for (const target_state of ["Standby", "Stopped"]) {
    const { status, body } = await fork(standby, { name: "target", target_state })
    expect([status, body.state], `for ${target_state}`).toEqual([201, target_state])
    expect((await move(stack, body.id, target_state === "Standby" ? "restore" : "start")).state).toBe(
      "Running",
    )
    await untilTicks(await lifeDir(stack, body.id), 3)
    await end("target")
  }
})

test("case 58: a name in use is a conflict, and of two forks with one name exactly one is made", async () => {
  const taken = await fork(standby, { name: "source" })
  expect([taken.status, taken.body.code, taken.headers.get("x-should-retry")]).toEqual([
    409,
    "conflict",
    "false",
  ])

  const replies = await Promise.all([fork(standby, { name: "twin" }), fork(standby, { name: "twin" })])

  expect(statuses(replies)).toEqual([201, 409])
  const listed: InstanceResource[] = (await stack.ask("GET", "/instances")).body
  expect(listed.filter(({ name }) => name === "twin")).toHaveLength(1)
  await end("twin")
})

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can mount a small file system to fill up")

test.skipIf(!isRoot)(
  "case 59: a fork that the host has no room for is insufficient_resources and leaves no instance",
  async () => {
    const instances = join(stack.dataDir, "instances")
    await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", instances])
    try {
      await writeFile(join(instances, "filler"), Buffer.alloc(64 * 1024)).catch(() => {})
      const { status, body, headers } = await fork(standby, { name: "roomless" })

      expect([status, body.code]).toEqual([409, "insufficient_resources"])
      expect(headers.get("x-should-retry")).toBe("false")
      expect((await stack.ask("GET", "/instances/roomless")).status).toBe(404)
    } finally {
      await run("umount", ["--lazy", instances])
    }
  },
)

const overcommits =
  process.platform !== "linux" || readFileSync("/proc/sys/vm/overcommit_memory", "latin1").trim() === "1"
if (overcommits) console.warn("skipped: this machine promises more memory than it has")

test.skipIf(overcommits)(
  "case 59: a launch that the host has no memory for is insufficient_resources and leaves no instance",
  async () => {
    const launch = { image: "heartbeat", memory_mib: 3 * 1024 * 1024 }

    const { status, body } = await stack.ask("POST", "/instances", { body: { name: "huge", launch } })

    expect([status, body.code]).toEqual([409, "insufficient_resources"])
    expect((await stack.ask("GET", "/instances/huge")).status).toBe(404)
  },
)

test("case 60: tags in a fork's body are no reason to refuse it", async () => {
  const { status } = await fork(standby, { name: "tagged", tags: { team: "backend" } })

  expect(status).toBe(201)
  await end("tagged")
})

test("case 48: a snapshot outlives its source: it is read and forked, and can't be restored", async () => {
  const mortal = await launchInto(stack, "mortal", "Stopped")
  const stopped = await captured(stack, mortal.id, { kind: "Stopped" })
  const printed = await serialLines(stack.generationDir(source))
  const { id } = await captured(stack, source.id)
  await end("mortal", "source")

  for (const snapshot of [stopped.id, id]) {
    expect((await stack.ask("GET", `/snapshots/${snapshot}`)).status).toBe(200)
    for (const instance of [mortal.id, source.id]) {
      const restored = await stack.ask("POST", `/instances/${instance}/snapshots/${snapshot}/restore`, {
        body: {},
      })
      expect([restored.status, restored.body.code]).toEqual([404, "not_found"])
    }
  }
  const heir = await fork(id, { name: "heir" })
  expect([heir.status, heir.body.state]).toEqual([201, "Running"])
  await untilTicks(stack.generationDir(heir.body), 3)
  expect(ticks(await serial(stack.generationDir(heir.body)))[1]?.tick).toBeGreaterThan(printed)
  expect((await fork(stopped.id, { name: "heir-of-stopped" })).status).toBe(201)
})
