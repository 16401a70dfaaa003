import { spawn } from "node:child_process"
import { chmod, realpath, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { identifyProcess } from "@stillframe/hypervisors/process/processes"
import { attachQemu } from "@stillframe/hypervisors/qemu/attached/attach"
import { expect, test } from "vitest"
import { rulesOf } from "./stranger-options.ts"
import { attach, startStranger } from "./stranger.ts"
import { ground, qemu, type Ground } from "./test-vm.ts"

/** A program that speaks QMP on its socket and answers each command with `answers[command]`. */
async function startImpostor(place: Ground, answers: object): Promise<string> {
  const controlSocket = join(place.root, "qmp.sock")
  const program = `
    const answers = ${JSON.stringify(answers)}
    if (answers.open) require("node:fs").openSync(answers.open)
    require("node:net").createServer((socket) => {
      const say = (message) => socket.write(JSON.stringify(message) + "\\n")
      say({ QMP: { version: { qemu: { major: 10, minor: 0, micro: 2 } }, capabilities: [] } })
      require("node:readline").createInterface(socket).on("line", (line) => {
        const { execute, id } = JSON.parse(line)
        say({ return: answers[execute] ?? {}, id })
      })
      socket.on("error", () => {})
    }).listen(${JSON.stringify(controlSocket)}, () => console.log("listens"))`
  const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "ignore"] })
  const listens = Promise.withResolvers<void>()
  child.stdout.once("data", () => listens.resolve())
  await listens.promise
  const identity = await identifyProcess(child.pid ?? 0)
  if (identity !== undefined) place.own(identity)
  return controlSocket
}

const sane = {
  "query-status": { status: "running", running: true },
  "query-memory-size-summary": { "base-memory": 64 * 1024 ** 2 },
  "query-cpus-fast": [{}],
  "query-block": [],
}

test.each([
  ["memory", { "query-memory-size-summary": { "base-memory": 1e300 } }, /memory/],
  [
    "processors",
    { "query-cpus-fast": Array.from({ length: 10_000 }, () => ({})) },
    /vcpus must be a whole number/,
  ],
])("a program that claims no possible %s is not attached to", async (_, odd, reason) => {
  await using place = await ground()
  const controlSocket = await startImpostor(place, { ...sane, ...odd })
  const binaries = [await realpath(process.execPath)]

  const attached = attachQemu({ controlSocket, binaries, rules: rulesOf(place) })

  await expect(attached).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringMatching(reason),
  })
})

test("a program that claims a disk of less than nothing is not attached to", async () => {
  await using place = await ground()
  const path = join(place.root, "disk.raw")
  await writeFile(path, "")
  const image = { filename: path, format: "raw", "virtual-size": -1 }
  const inserted = { "node-name": "disk", ro: false, drv: "raw", image }
  // The impostor has the file open, as its QEMU would.
  const controlSocket = await startImpostor(place, {
    ...sane,
    "query-block": [{ device: "d", inserted }],
    open: path,
  })
  const binaries = [await realpath(process.execPath)]

  const attached = attachQemu({ controlSocket, binaries, rules: rulesOf(place) })

  await expect(attached).rejects.toMatchObject({ code: "invalid_request", message: /a disk of -1 bytes/ })
})

test("a machine that the host's own QEMU does not have makes a VM one that can't be restored, and says so", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  const launcher = join(place.root, "other-qemu")
  await writeFile(launcher, '#!/bin/sh\necho "pc-q35-99.0  Standard PC"\n')
  await chmod(launcher, 0o755)

  const { launch } = await attach(place, stranger, { launcher })

  expect(launch).toMatchObject({
    restorable: false,
    option: expect.stringMatching(/^the machine type pc-q35-/),
  })
  expect(await attach(place, stranger, { launcher: qemu.binary })).toMatchObject({
    launch: { restorable: true },
  })
})
