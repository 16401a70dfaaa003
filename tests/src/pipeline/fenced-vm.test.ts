import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import {
  endProcess,
  identifyProcess,
  processAlive,
  type ProcessIdentity,
} from "@stillframe/hypervisors/process/processes"
import { afterAll, beforeAll, expect, test } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"
import { act } from "./instance-acts.ts"
import { testStack, type TestStack } from "./test-stack.ts"

/**
 * A program that is a QEMU on its two sockets. While the file of its `-append` is there, it sends
 * `watch.sock` a line without an end and has taken its identity off its command line, as a guest that has
 * escaped may.
 */
const liar = `
  const { existsSync } = require("node:fs")
  const lies = process.argv[process.argv.indexOf("-append") + 1]
  const greeting = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } }
  const answers = { "query-status": { running: true, status: "running" }, "query-migrate": { status: "none" } }
  const serve = (name, onSocket) => require("node:net").createServer((socket) => {
    socket.on("error", () => {})
    socket.write(JSON.stringify(greeting) + "\\n")
    require("node:readline").createInterface({ input: socket }).on("error", () => {}).on("line", (line) => {
      const { execute, id } = JSON.parse(line)
      socket.write(JSON.stringify({ return: answers[execute] ?? {}, id }) + "\\n")
    })
    onSocket(socket)
  }).listen(name)
  serve("command.sock", () => {})
  serve("watch.sock", (socket) => {
    const timer = setInterval(() => {
      if (!existsSync(lies)) return
      process.title = "x"
      socket.write("a".repeat(100_000))
    }, 20)
    socket.on("close", () => clearInterval(timer))
  })`

let stack: TestStack
let binary: string
let lies: string
beforeAll(async () => {
  stack = await testStack()
  const script = join(stack.imagesDir, "liar.cjs")
  binary = join(stack.imagesDir, "qemu")
  lies = join(stack.imagesDir, "lies")
  await writeFile(script, liar)
  const played = `exec ${process.execPath} ${script} "$@"`
  const text = `#!/bin/sh\ncase "$*" in *${lies}*) ${played};; esac\nexec ${qemu.binary} "$@"\n`
  await writeFile(binary, text, { mode: 0o755 })
})
afterAll(() => stack[Symbol.asyncDispose]())

interface Liar extends AsyncDisposable {
  readonly instance: InstanceResource
  readonly vm: ProcessIdentity
}

async function launchLiar(): Promise<Liar> {
  const instance = await stack.api.request<InstanceResource>("POST", "/instances", {
    name: "liar",
    launch: { image: "heartbeat", cmdline: lies },
  })
  const row = await stack.db
    .selectFrom("instances")
    .select("pid")
    .where("id", "=", instance.id)
    .executeTakeFirst()
  const vm = await identifyProcess(row?.pid ?? 0)
  if (vm === undefined) throw new Error("the liar does not run")
  return {
    instance,
    vm,
    async [Symbol.asyncDispose]() {
      await rm(lies, { force: true })
      await endProcess(vm, { graceMs: 0 })
    },
  }
}

async function shown({ instance }: Liar): Promise<Pick<InstanceResource, "state" | "state_error">> {
  return stack.api.request("GET", `/instances/${instance.id}`)
}

const fenced = { state: "Unknown", state_error: expect.stringContaining("its guest may have escaped") }

test("DELETE ends a fenced VM for sure, though it hides whose it is", async () => {
  await using _worker = await stack.startCaptureWorker({ qemuBinary: binary })
  await using lying = await launchLiar()
  await writeFile(lies, "")
  await expect.poll(() => shown(lying)).toMatchObject(fenced)

  await stack.api.request("DELETE", `/instances/${lying.instance.id}`)

  expect(await processAlive(lying.vm)).toBe(false)
})

test("stop does so too, and the instance is Stopped", async () => {
  await using _worker = await stack.startCaptureWorker({ qemuBinary: binary })
  await using lying = await launchLiar()
  await writeFile(lies, "")
  await expect.poll(() => shown(lying)).toMatchObject(fenced)

  await act(stack, lying.instance, "stop")

  expect(await processAlive(lying.vm)).toBe(false)
  expect(await shown(lying)).toMatchObject({ state: "Stopped" })
  await stack.api.request("DELETE", `/instances/${lying.instance.id}`)
})

test("the host's next worker fences a VM again that still lies, and believes one that behaves", async () => {
  const worker = await stack.startCaptureWorker({ qemuBinary: binary })
  await using lying = await launchLiar()
  await writeFile(lies, "")
  await expect.poll(() => shown(lying)).toMatchObject(fenced)
  await worker[Symbol.asyncDispose]()
  await stack.db
    .updateTable("instances")
    .set({ state_error: null })
    .where("id", "=", lying.instance.id)
    .execute()

  const next = await stack.startCaptureWorker({ qemuBinary: binary })
  await expect.poll(() => shown(lying)).toMatchObject(fenced)
  await next[Symbol.asyncDispose]()
  await rm(lies)
  await using _last = await stack.startCaptureWorker({ qemuBinary: binary })

  await expect.poll(() => shown(lying)).toMatchObject({ state: "Running" })
  await stack.api.request("DELETE", `/instances/${lying.instance.id}`)
})
