import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { readVersion, readVm } from "../cloud-hypervisor/api.ts"
import { vmFiles } from "../cloud-hypervisor/files.ts"
import { vmState } from "../firecracker/api.ts"

const deadlineMs = 5_000
const ok = "HTTP/1.1 200 OK\r\n"
const answer = (body: string): string => `${ok}Content-Length: ${body.length}\r\n\r\n${body}`

/** A VMM that sends the same to every request. */
async function vmm(sent: string): Promise<AsyncDisposable & { readonly dir: string }> {
  await using opened = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-vmm-"))
  opened.defer(() => rm(dir, { recursive: true }))
  const server = opened.use(createServer((socket) => answerOn(socket, sent)))
  // Both VMMs listen by this name.
  server.listen(join(dir, vmFiles.socket))
  await once(server, "listening")
  const resources = opened.move()
  return { dir, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

function answerOn(socket: Socket, sent: string): void {
  socket.on("error", () => {}).once("data", () => socket.write(sent))
}

// A VMM that its guest has taken over answers as it likes.
test.for([
  ["what is no HTTP", "QMP\r\n\r\n"],
  ["headers without an end", `${ok}X: ${"a".repeat(100_000)}`],
  ["a body of more than 256 KiB", `${ok}\r\n${"a".repeat(256 * 1024 + 1)}`],
  ["what is no JSON", answer("hello")],
  ["what is no object", answer("null")],
] as const)("%s ends the request as untrusted", async ([, sent]) => {
  await using peer = await vmm(sent)
  const untrusted = { code: "hypervisor_untrusted", message: expect.stringContaining("may have escaped") }
  await expect(readVm(peer.dir, deadlineMs)).rejects.toMatchObject(untrusted)
  await expect(vmState(peer.dir, deadlineMs)).rejects.toMatchObject(untrusted)
})

test("members of a wrong type are not believed", async () => {
  await using peer = await vmm(answer(`{"version":1,"state":1,"config":"none"}`))
  await expect(readVersion(peer.dir, deadlineMs)).rejects.toMatchObject({ code: "hypervisor_untrusted" })
  await expect(readVm(peer.dir, deadlineMs)).rejects.toMatchObject({ code: "hypervisor_untrusted" })
})
