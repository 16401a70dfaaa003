import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { openMonitor } from "./qmp.ts"

test("a monitor that accepts and says nothing may be another program's, or of a QEMU that is stopped", async () => {
  await using stack = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-monitor-"))
  stack.defer(() => rm(dir, { recursive: true }))
  const server = stack.use(createServer((socket) => socket.unref()))
  server.listen(join(dir, "silent.sock"))
  await once(server, "listening")

  await expect(openMonitor(dir, "silent.sock")).rejects.toMatchObject({
    code: "hypervisor_silent",
    message: expect.stringMatching(
      /another program .*, or QEMU itself is stopped or hangs; .*let QEMU go on$/,
    ),
  })
})
