import { execFile } from "node:child_process"
import { readdir, readFile } from "node:fs/promises"
import { promisify } from "node:util"
import { createId } from "@stillframe/domain/ids"
import { expect, test } from "vitest"
import { openCaptors, type Captors } from "./captors.ts"

// Orders for an instance that this machine never had: a captor does them without a VM.

test("a captor takes the next order after a success, and ends after a failure", async () => {
  await using captors = openCaptors()
  const [first] = await captorPids()

  await endInstance(captors)
  await expect.poll(() => endInstance(captors).then(captorPids), patience).toEqual([first])
  await expect
    .poll(async () => {
      await expect(startInstance(captors)).rejects.toMatchObject({ code: "corrupted" })
      return captorPids()
    }, patience)
    .not.toContain(first)
})

test("captors whose orders overlap are kept for the next ones, and one of them when there is nothing to do", async () => {
  await using captors = openCaptors({ sparesMax: 2 })
  let pids: number[] = []

  const sameAgain = async (): Promise<boolean> => {
    const before = pids
    await Promise.all([endInstance(captors), endInstance(captors)])
    pids = await captorPids()
    return pids.length === 2 && pids.join() === before.join()
  }

  await expect.poll(sameAgain, patience).toBe(true)
  await expect.poll(captorPids, patience).toHaveLength(1)
})

test("orders at the same time have a captor each, and none is left when their owner is done", async () => {
  const captors = openCaptors()
  await Promise.all([endInstance(captors), endInstance(captors), endInstance(captors)])

  await captors[Symbol.asyncDispose]()

  expect(await captorPids()).toEqual([])
})

test.for(["its order is called off", "its order's time is over"])(
  "a captor that hangs is ended soon after %s",
  async (when) => {
    const orderMs = when === "its order is called off" ? 60_000 : 100
    await using captors = openCaptors({ deadlines: { orderMs: () => orderMs, endMs: () => 100 } })
    const [hung = 0] = await captorPids()
    process.kill(hung, "SIGSTOP")
    const owner = new AbortController()
    const lost = Promise.withResolvers<void>()
    const order = { kind: "end", remove: "instance", ...orderOf() } as const
    const given = captors.order(order, { signal: owner.signal, onLost: async () => lost.resolve() })
    if (when === "its order is called off") owner.abort()

    await expect(given).rejects.toMatchObject({ code: "timeout" })
    await lost.promise
    expect(await captorPids()).not.toContain(hung)
  },
)
test("without file descriptors an order fails in words, and the next one is done once there are some", async () => {
  const order = { kind: "end", remove: "instance", ...orderOf() }
  const script = `
    import { closeSync, openSync } from "node:fs"
    import { openCaptors } from ${JSON.stringify(new URL("captors.ts", import.meta.url).href)}
    const held = []
    try { for (;;) held.push(openSync("/dev/null")) } catch {}
    closeSync(held.pop())
    const captors = openCaptors()
    const options = { signal: new AbortController().signal, onLost: async () => {} }
    const tell = (result) => console.log(JSON.stringify(result))
    const carryOut = () => captors.order(${JSON.stringify(order)}, options)
    await carryOut().then(tell, ({ code, message }) => tell({ code, message }))
    held.forEach(closeSync)
    await carryOut().then(tell, ({ code, message }) => tell({ code, message }))
    await captors[Symbol.asyncDispose]()`
  const node = [process.execPath, "--input-type=module", "--eval", script]

  const { stdout } = await promisify(execFile)("prlimit", ["--nofile=64:64", ...node])

  expect(
    stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as unknown),
  ).toEqual([
    { code: "insufficient_resources", message: expect.stringMatching(/no file descriptor left.*ulimit -n/) },
    null,
  ])
})

const patience = { timeout: 20_000 }

const orderOf = () => ({
  clusterId: createId(),
  dataDir: "/nonexistent",
  storageDir: "/nonexistent",
  instanceId: createId(),
  generation: 1,
  operationId: createId(),
  token: createId(),
  leaseMs: 60_000,
})

const options = { signal: new AbortController().signal, onLost: async () => {} }

const endInstance = (captors: Captors): Promise<null> =>
  captors.order({ kind: "end", remove: "instance", ...orderOf() }, options)

function startInstance(captors: Captors): Promise<unknown> {
  const hypervisor = { name: "qemu", binary: "/nonexistent", qemuImg: "/nonexistent" } as const
  const launch = { memoryMib: 64, vcpus: 1, disks: [] }
  return captors.order({ kind: "start", hypervisor, launch, ...orderOf() }, options)
}

/** The pids of the captors that this process has started. */
async function captorPids(): Promise<number[]> {
  const threads = await readdir("/proc/self/task")
  const children = await Promise.all(
    threads.map((thread) => readFile(`/proc/self/task/${thread}/children`, "utf8").catch(() => "")),
  )
  const pids = children.join(" ").split(" ").filter(Boolean)
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  )
  return pids.filter((_, index) => commands[index]?.includes("executor/main.ts")).map(Number)
}
