import { qemuHypervisor } from "@stillframe/hypervisors/qemu/hypervisor"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { findProgram } from "@stillframe/runtime/find-program"
import { heartbeatConfig, never, qemu } from "../test-vm.ts"
import { smallDisk, whyNoSmallDisk } from "./small-disk.ts"
import type { FullDisk, Subject, Wire } from "./subject.ts"

/** Not the one that captors have for themselves. */
const monitor = "watch.sock"

const wire: Wire = {
  socket: "command.sock",
  steps: { pause: /"execute":"stop"/, save: /"execute":"migrate"/, resume: /"execute":"cont"/ },
  refusal(request) {
    const id = Number(/"id":(\d+)/.exec(request)?.[1])
    return `${JSON.stringify({ id, error: { class: "GenericError", desc: "not now" } })}\r\n`
  },
}

const fullDisks: readonly FullDisk[] =
  whyNoSmallDisk === undefined
    ? [
        {
          file: "memory",
          code: "insufficient_storage",
          words: /disk became full/,
          takeRoom: async ({ payload }) => await smallDisk(payload, 256),
        },
      ]
    : []

async function subject(binary: string): Promise<Subject> {
  const { version } = await probeQemu(binary, never)
  const guest = await heartbeatConfig({ binary })
  return {
    title: `qemu ${version} (real)`,
    guest,
    wire,
    fullDisks,
    hypervisor: async (_, options) =>
      qemuHypervisor({ name: "qemu", binary, qemuImg: qemu.qemuImg }, options),
    pause: async (dir) => void (await withMonitor(dir, monitor, async (qmp) => await qmp.execute("stop"))),
    isRunning: async (dir) =>
      await withMonitor(dir, monitor, async (qmp) => {
        return (await qmp.execute<{ running: boolean }>("query-status")).running
      }),
  }
}

const newer = findProgram("qemu-system-x86_64-10", process.env["PATH"])

/** The system's, and the set-up's QEMU 10 where it could be had. */
export async function qemus(): Promise<[Subject, ...Subject[]]> {
  const system = await subject(qemu.binary)
  try {
    return [system, await subject(newer)]
  } catch {
    console.warn(`not tested: QEMU 10 is not at ${newer}`)
    return [system]
  }
}
