import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { expect, test } from "vitest"
import { openMonitor } from "./qmp.ts"

const kib = 1024
const greeting = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } }
const event = { event: "RTC_CHANGE", timestamp: { seconds: 1, microseconds: 1 } }
const text = (message: object): string => `${JSON.stringify(message)}\n`

interface Peer extends AsyncDisposable {
  readonly dir: string
  /** To the one that is connected. */
  send(data: string | Buffer): void
}

/**
 * A QEMU that answers each command of the negotiation, and `answers` for the others; a command without an
 * answer gets none.
 */
async function peer(answers: Readonly<Record<string, unknown>> = {}): Promise<Peer> {
  await using opened = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-monitor-"))
  opened.defer(() => rm(dir, { recursive: true }))
  let connected: Socket | undefined
  const known: Readonly<Record<string, unknown>> = { qmp_capabilities: {}, ...answers }
  const server = opened.use(
    createServer((socket) => {
      connected = socket
      socket.on("error", () => {})
      socket.write(text(greeting))
      const lines = createInterface({ input: socket }).on("error", () => {})
      lines.on("line", (line) => {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number }
        if (execute in known) socket.write(text({ return: known[execute], id }))
      })
    }),
  )
  opened.defer(() => void connected?.destroy())
  server.listen(join(dir, "monitor.sock"))
  await once(server, "listening")
  const resources = opened.move()
  return {
    dir,
    send: (data) => void connected?.write(data),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

const untrusted: unknown = expect.objectContaining({
  code: "hypervisor_untrusted",
  message: expect.stringContaining("may have escaped"),
})

test("a monitor that accepts and says nothing may be another program's, or of a QEMU that is stopped", async () => {
  await using stack = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-monitor-"))
  stack.defer(() => rm(dir, { recursive: true }))
  const server = stack.use(createServer((socket) => socket.unref()))
  server.listen(join(dir, "silent.sock"))
  await once(server, "listening")

  await expect(openMonitor(dir, "silent.sock")).rejects.toMatchObject({
    code: "hypervisor_silent",
    message: expect.stringMatching(/another program .*, or QEMU is stopped or hangs; .*continue QEMU$/),
  })
})

// A QEMU that its guest has taken over sends what it likes.
test.for([
  ["a line of more than 64 KiB", Buffer.alloc(64 * kib + 1, "a")],
  ["an event of more than 64 KiB", text({ ...event, data: "a".repeat(64 * kib) })],
  ["an unasked answer of more than 64 KiB", text({ return: "a".repeat(64 * kib), id: 99 })],
  ["a flood of events", text(event).repeat(1_001)],
  ["a flood of empty lines", "\n".repeat(1_001)],
  ["large events that come fast", text({ ...event, data: "a".repeat(32 * kib) }).repeat(40)],
  ["what is no QMP", "HTTP/1.1 200 OK\n"],
] as const)("%s ends the connection as untrusted", async ([, sent]) => {
  await using qemu = await peer()
  const monitor = await openMonitor(qemu.dir, "monitor.sock")
  const waiting = monitor.execute("query-status")
  qemu.send(sent)
  await expect(waiting).rejects.toEqual(untrusted)
  expect(await monitor.closed).toEqual(untrusted)
})

test("an answer that grows with the VM may be larger than an event, up to a bound of its own", async () => {
  const blocks = (bytes: number): string[] => ["a".repeat(bytes)]
  await using large = await peer({ "query-block": blocks(2 * kib * kib) })
  const monitor = await openMonitor(large.dir, "monitor.sock")
  expect(await monitor.execute("query-block")).toHaveLength(1)
  monitor.close()

  await using larger = await peer({ "query-block": blocks(4 * kib * kib) })
  const liar = await openMonitor(larger.dir, "monitor.sock")
  await expect(liar.execute("query-block")).rejects.toEqual(untrusted)
})

test("a line may arrive in pieces that end within characters", async () => {
  await using qemu = await peer()
  const monitor = await openMonitor(qemu.dir, "monitor.sock")
  const heard = Promise.withResolvers<unknown>()
  monitor.subscribe(({ data }) => heard.resolve(data))
  const line = text({ ...event, data: { text: "é".repeat(20 * kib) } })
  const bytes = Buffer.from(line)
  // Odd, so that pieces end within characters.
  for (let from = 0; from < bytes.length; from += 7) qemu.send(bytes.subarray(from, from + 7))
  expect(await heard.promise).toEqual({ text: "é".repeat(20 * kib) })
  monitor.close()
})

test("events below the bound are all heard", async () => {
  await using qemu = await peer({ "query-status": { running: true } })
  const monitor = await openMonitor(qemu.dir, "monitor.sock")
  let heard = 0
  monitor.subscribe(() => heard++)
  // The greeting was a line too.
  qemu.send(text(event).repeat(999))
  await monitor.execute("query-status")
  expect(heard).toBe(999)
  monitor.close()
})
