import { execFile } from "node:child_process"
import { mkdir, readdir, rename, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, beforeAll, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { captured, create, move } from "../contract/contract-stack.ts"
import { testStack, type TestStack } from "./test-stack.ts"

const run = promisify(execFile)

let stack: TestStack
let vm: InstanceResource
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  vm = await stack.launch("vm")
})
afterAll(() => stack[Symbol.asyncDispose]())

/**
 * A snapshot that has lost a file, and a request that reads it: the answer, once the snapshot is known to be
 * corrupted.
 */
async function withoutFile(
  file: string,
  use: (id: string) => Promise<Reply>,
  put: (path: string) => Promise<unknown> = async () => {},
): Promise<{ reply: Reply; id: string }> {
  const { id } = await captured(stack, vm.id)
  const path = join(await stack.payloadDir(id), file)
  await rename(path, `${path}.away`)
  await put(path)
  const reply = await use(id)
  await using _worker = await stack.startCompressionWorker()
  await stack.until(async () => {
    const { body } = await stack.ask("GET", `/snapshots/${id}`)
    return body.corrupted_at === undefined ? undefined : true
  })
  return { reply, id }
}

test("a fork of a snapshot whose directory is gone says that all files are missing", async () => {
  const { reply } = await withoutFile("", fork)

  expect([reply.status, reply.body.code]).toEqual([409, "conflict"])
  expect(reply.body.message).toBe("all files are missing; bring them back from a backup")
})

const fork = (id: string): Promise<Reply> =>
  stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "fork" } })

test.each(["memory", "kernel"])(
  "a fork of a snapshot whose %s is missing is refused with words, and has the snapshot verified",
  async (file) => {
    const { reply } = await withoutFile(file, fork)

    expect([reply.status, reply.body.code]).toEqual([409, "conflict"])
    expect(reply.body.message).toContain(`${file} is missing`)
    expect((await stack.ask("GET", "/instances/fork")).status).toBe(404)
  },
)

// A process that reads one of these waits for ever, or reads another user's file.
const strange: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  "a pipe": (path) => run("mkfifo", [path]),
  "a directory": (path) => mkdir(path),
  "a link": (path) => symlink(`${path}.away`, path),
  "an empty file": (path) => writeFile(path, ""),
  "{}": (path) => writeFile(path, "{}"),
}

test.each([
  ["memory", "a pipe"],
  ["memory", "a link"],
  ["kernel", "a directory"],
  ["manifest.json", "a pipe"],
  ["manifest.json", "an empty file"],
  ["manifest.json", "{}"],
])(
  "a fork of a snapshot with a %s that is %s is refused at once, and has it verified",
  async (file, what) => {
    const { reply } = await withoutFile(file, fork, strange[what])

    expect([reply.status, reply.body.code]).toEqual([409, "conflict"])
    expect(reply.body.message).toContain(file)
    expect(reply.body.message).not.toContain(stack.storageDir)
  },
)

test("a compression of a snapshot whose memory is missing fails with words, and has the snapshot verified", async () => {
  await using _worker = await stack.startCompressionWorker()
  const body = { algorithm: "zstd", level: 1 }
  const headers = { prefer: "wait=55" }
  const { reply } = await withoutFile("memory", (id) =>
    stack.ask("POST", `/snapshots/${id}/compress`, { body, headers }),
  )

  expect(reply.body).toMatchObject({
    compression_state: "error",
    compression_error: expect.stringContaining("memory is missing"),
  })
})

test("a restore in place, and all that uses the image of an instance in Standby, likewise", async () => {
  await move(stack, vm.id, "stop")
  await move(stack, vm.id, "start")
  const { id } = await captured(stack, vm.id)
  const memory = join(await stack.payloadDir(id), "memory")
  await move(stack, vm.id, "standby")
  const images = join(stack.dataDir, "instances", vm.id, "standby")
  const [image = ""] = await readdir(images)

  await rename(memory, `${memory}.away`)
  const restored = await stack.ask("POST", `/instances/${vm.id}/snapshots/${id}/restore`, { body: {} })
  await rename(join(images, image, "memory"), join(images, image, "away"))
  const copied = await create(stack, vm.id)
  const resumed = await stack.ask("POST", `/instances/${vm.id}/restore`, { body: {} })

  for (const { status, body } of [restored, copied, resumed]) {
    expect([status, body.code]).toEqual([409, "conflict"])
    expect(body.message).toContain("memory is missing")
  }
  expect((await stack.ask("GET", `/instances/${vm.id}`)).body.state).toBe("Standby")
})
