import { execFile } from "node:child_process"
import { cp, mkdir, rename, rm, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { create } from "../contract/contract-stack.ts"
import { testStack, type TestStack } from "./test-stack.ts"
import { fakeOf } from "./vmm-stack.ts"

const run = promisify(execFile)

/** Puts something else in a file's place. */
const strange = {
  nothing: async () => {},
  "a link": (path: string) => symlink("/etc/hostname", path),
  "a directory": (path: string) => mkdir(path),
  "a pipe": (path: string) => run("mkfifo", [path]),
  "an empty file": (path: string) => writeFile(path, ""),
  "{}": (path: string) => writeFile(path, "{}"),
  "[{}]": (path: string) => writeFile(path, "[{}]"),
} as const satisfies Record<string, (path: string) => Promise<unknown>>

type Cases = [file: string, places: (keyof typeof strange)[]][]

/**
 * The files of a VM's directory that an operation reads or writes by their names, and what lies in their
 * place.
 */
const cases: Record<"qemu" | "cloud-hypervisor", { readonly running: Cases; readonly atRest: Cases }> = {
  qemu: {
    running: [
      ["disks.json", ["nothing", "a link", "an empty file", "{}"]],
      ["disk0.0.qcow2", ["nothing", "a link"]],
      ["disk0.base", ["nothing", "a directory"]],
      ["kernel", ["nothing", "a link"]],
    ],
    atRest: [
      ["disks.json", ["nothing", "a link", "{}", "[{}]"]],
      ["disk0.0.qcow2", ["nothing", "an empty file"]],
      ["disk0.base", ["nothing"]],
      ["kernel", ["nothing", "a directory", "a pipe"]],
      ["qemu.log", ["nothing", "a link", "a directory", "a pipe"]],
      ["serial.log", ["a link", "a directory"]],
    ],
  },
  "cloud-hypervisor": {
    running: [
      ["disks.json", ["nothing", "{}"]],
      ["disk0.base", ["nothing", "a link"]],
      ["kernel", ["nothing"]],
      ["vm.json", ["{}"]],
    ],
    atRest: [
      ["disks.json", ["nothing", "an empty file"]],
      ["vm.json", ["nothing", "a directory", "{}"]],
      ["kernel", ["nothing"]],
      ["cloud-hypervisor.log", ["a link", "a directory"]],
      ["serial.log", ["a pipe"]],
    ],
  },
}

describe.each(["qemu", "cloud-hypervisor"] as const)("a VM of %s", (hypervisor) => {
  let stack: TestStack
  let vm: InstanceResource
  let dir: string
  beforeAll(async () => {
    stack = await testStack()
    const fake = { path: await fakeOf(stack.dataDir, "cloud-hypervisor") }
    await stack.startCaptureWorker({ vmms: new Map([["cloud-hypervisor", fake]]) })
    const path = join(stack.imagesDir, "disk.raw")
    await writeFile(path, Buffer.alloc(1024 * 1024, 7))
    // The file system of the tests clones no disk that a guest writes.
    const disks = [{ path, format: "raw", readonly: hypervisor !== "qemu" }]
    const body = { name: "vm", hypervisor, launch: { image: "heartbeat", disks } }
    vm = await stack.api.request<InstanceResource>("POST", "/instances", body)
    dir = stack.generationDir(vm)
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  const start = () => stack.ask("POST", `/instances/${vm.id}/start`, { body: {} })
  const stop = () => stack.ask("POST", `/instances/${vm.id}/stop`)

  /**
   * A refusal that says nothing which a person could act on, or names a path of the host; undefined for any
   * other answer.
   */
  function unworded(what: string, { status, body }: Reply): string | undefined {
    if (status < 400) return undefined
    const { message } = body as { message: string }
    const saysWhy = /[.;] \S.+/.test(message) && !/internal error|unforeseen/.test(message)
    return saysWhy && !message.includes(stack.dataDir) ? undefined : `${what}: ${status} ${message}`
  }

  test.each(cases[hypervisor].running)(
    "that runs and has lost its %s is captured, or the refusal says what to do",
    async (file, places) => {
      const path = join(dir, file)
      const found: (string | undefined)[] = []
      for (const what of places) {
        await rename(path, `${path}.away`)
        await strange[what](path)
        found.push(unworded(what, await create(stack, vm.id)))
        await rm(path, { recursive: true, force: true })
        await rename(`${path}.away`, path)
      }

      expect(found.filter((each) => each !== undefined)).toEqual([])
      expect((await create(stack, vm.id)).status).toBe(201)
    },
  )

  test.each(cases[hypervisor].atRest)(
    "that is stopped and has lost its %s is captured and started, or the refusals say what to do",
    async (file, places) => {
      await stop()
      await cp(dir, `${dir}.whole`, { recursive: true, preserveTimestamps: true })
      const path = join(dir, file)
      const found: (string | undefined)[] = []
      for (const what of places) {
        await rm(path, { force: true })
        await strange[what](path)
        found.push(unworded(`capture, ${what}`, await create(stack, vm.id, { kind: "Stopped" })))
        const started = await start()
        found.push(unworded(`start, ${what}`, started))
        if (started.status < 400) await stop()
        await rm(dir, { recursive: true })
        await cp(`${dir}.whole`, dir, { recursive: true, preserveTimestamps: true })
      }
      await rm(`${dir}.whole`, { recursive: true })

      expect(found.filter((each) => each !== undefined)).toEqual([])
      expect((await start()).status).toBe(200)
    },
  )
})
