import { once } from "node:events"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { messageBytesMax } from "@stillframe/capture-worker/executor/orders"
import { openCaptors } from "@stillframe/capture-worker/operations/executors/captors"
import { createId } from "@stillframe/domain/ids"
import { readVm } from "@stillframe/hypervisors/cloud-hypervisor/api"
import { vmFiles } from "@stillframe/hypervisors/cloud-hypervisor/files"
import { vmState } from "@stillframe/hypervisors/firecracker/api"
import { openMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { afterEach, beforeEach, expect, test } from "vitest"
import { heldMs } from "../api/held-loop.ts"
import { never } from "./test-vm.ts"

const heldMsMax = 50
const kib = 1024

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-held-"))
})
afterEach(() => rm(dir, { recursive: true }))

/** JSON objects of a length that take the longest to parse: many records, many names, and deep ones. */
function worst(bytes: number): [what: string, json: string][] {
  const inner = bytes - 10
  const each = (length: number, member: (n: number) => string): string =>
    Array.from({ length: Math.floor(inner / length) }, (_, n) => member(n)).join(",")
  return [
    ["records", `{"a":[${each(14, (n) => `{"k${String(n).padStart(5, "0")}":1}`)}]}`],
    ["names", `{${each(16, (n) => String.raw`"\n${`k${n}`.padEnd(8, "_")}":1`)}}`],
    ["depth", `{"a":${"[".repeat(inner / 2)}${"]".repeat(inner / 2)}}`],
  ]
}

/** Listens as `name` in the test's directory. */
async function listen(name: string, onSocket: (socket: Socket) => void): Promise<AsyncDisposable> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => onSocket(socket.on("error", () => {})))
  server.on("connection", (socket) => sockets.add(socket)).listen(join(dir, name))
  await once(server, "listening")
  return {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await server[Symbol.asyncDispose]()
    },
  }
}

const greeting = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } }

/** A QEMU that is given what it says, after its answer to `qmp_capabilities`. */
function monitorSays(socket: Socket, says: (id: number) => string): void {
  socket.write(`${JSON.stringify(greeting)}\n`)
  const lines = createInterface({ input: socket }).on("error", () => {})
  lines.on("line", (line) => {
    const { execute, id } = JSON.parse(line) as { execute: string; id: number }
    socket.write(execute === "qmp_capabilities" ? `{"return":{},"id":${id}}\n` : says(id))
  })
}

test("a flood of the worst lines of a monitor does not hold the event loop", async () => {
  for (const [what, json] of worst(64 * kib)) {
    const lines = `${json}\n`.repeat(64)
    await using _qemu = await listen("qmp.sock", (socket) => monitorSays(socket, () => lines))

    const held = await heldMs(async () => {
      const monitor = await openMonitor(dir, "qmp.sock")
      await expect(monitor.execute("query-status")).rejects.toMatchObject({ code: "hypervisor_untrusted" })
    })

    expect(held, `of ${what}`).toBeLessThan(heldMsMax)
  }
})

test("QEMU's answer about 16 disks of hundreds of layers does not hold the event loop", async () => {
  const nodes = JSON.stringify(Array.from({ length: 16 * 200 }, (_, n) => blockNode(n)))
  const answer = (id: number): string => `{"return":${nodes},"id":${id}}\n`
  expect(answer(1).length).toBeGreaterThan(3 * kib * kib)
  await using _qemu = await listen("qmp.sock", (socket) => monitorSays(socket, answer))
  const monitor = await openMonitor(dir, "qmp.sock")

  const held = await heldMs(() => monitor.execute("query-named-block-nodes"))

  monitor.close()
  expect(held).toBeLessThan(heldMsMax)
})

test("the worst answer of Cloud Hypervisor and Firecracker does not hold the event loop", async () => {
  for (const [what, json] of worst(256 * kib)) {
    const answer = `HTTP/1.1 200 OK\r\nContent-Length: ${json.length}\r\n\r\n${json}`
    await using _vmm = await listen(vmFiles.socket, (socket) =>
      socket.once("data", () => socket.write(answer)),
    )
    for (const ask of [readVm, vmState]) {
      const held = await heldMs(() => Promise.allSettled([ask(dir, 5_000)]))
      expect(held, `${what} to ${ask.name}`).toBeLessThan(heldMsMax)
    }
  }
})

test("the worst message of a captor does not hold its worker's event loop", async () => {
  const program = join(dir, "captor.mjs")
  const message = join(dir, "message")
  await writeFile(
    program,
    `import { readFileSync } from "node:fs"
    import { Socket } from "node:net"
    const channel = new Socket({ fd: 3 }).on("error", () => {}).on("close", () => process.exit())
    channel.once("data", () => channel.write(readFileSync(${JSON.stringify(message)})))`,
  )
  await using captors = openCaptors({ program })
  const ask = (): Promise<void> =>
    expect(captors.order(attachOrder(), { signal: never, onLost: async () => {} })).rejects.toMatchObject({
      code: "hypervisor_untrusted",
    })

  for (const [what, json] of worst(messageBytesMax - 100)) {
    for (const sent of [
      json,
      `{"importing":${json}}`,
      `{"error":${json}}`,
      `{"result":${json}}`,
      launchIn(json),
    ]) {
      await writeFile(message, `${sent}\n`)
      expect(await heldMs(ask), `${what} in ${sent.slice(0, 20)}`).toBeLessThan(heldMsMax)
    }
  }
})

/** The result of an attach as far as it must be right to have the rest looked at. */
const launchIn = (json: string): string =>
  `{"result":{"launch":{"restorable":true,"config":${json},"devices":[]}}}`

const attachOrder = () =>
  ({
    kind: "attach",
    hypervisor: { name: "qemu", binary: "/nonexistent", qemuImg: "/nonexistent" },
    storageDir: "/nonexistent",
    controlSocket: "/nonexistent",
    binaries: [],
    hostPaths: [],
    clusterId: createId(),
    dataDir: "/nonexistent",
    instanceId: createId(),
    generation: 1,
    operationId: createId(),
    token: createId(),
    leaseMs: 60_000,
  }) as const

/** As QEMU 7.2 and 10 describe a layer. */
function blockNode(n: number): object {
  const file = `/var/lib/stillframe/instances/${"i".repeat(24)}/1/disk${n % 16}.${n}.qcow2`
  return {
    iops_rd: 0,
    detect_zeroes: "off",
    image: {
      "virtual-size": 10_737_418_240,
      filename: file,
      "cluster-size": 65_536,
      format: "qcow2",
      "actual-size": 200_704,
      "format-specific": {
        type: "qcow2",
        data: { compat: "1.1", "compression-type": "zlib", "lazy-refcounts": false, "refcount-bits": 16 },
      },
      "backing-filename": file,
      "full-backing-filename": file,
      "dirty-flag": false,
    },
    iops_wr: 0,
    ro: true,
    "node-name": `disk${n % 16}-${n}`,
    backing_file_depth: n % 200,
    drv: "qcow2",
    iops: 0,
    bps_wr: 0,
    write_threshold: 0,
    backing_file: file,
    encrypted: false,
    bps: 0,
    bps_rd: 0,
    cache: { "no-flush": false, direct: false, writeback: true },
    file,
    children: [{ name: "file", "node-name": `disk${n % 16}-${n}-file` }],
  }
}
