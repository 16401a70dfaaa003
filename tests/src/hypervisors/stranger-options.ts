import { join } from "node:path"
import type { AttachedVm, AttachOptions } from "@stillframe/hypervisors/attached"
import type { AttachedCaptureOptions } from "@stillframe/hypervisors/qemu/attached/capture"
import { heartbeat, never, qemu, type Ground } from "./test-vm.ts"

/** How a test captures into `dir`, in its own process or in another one. */
export function captureOptions(
  ground: Pick<Ground, "root">,
  vm: AttachedVm,
  dir: string,
): Omit<AttachedCaptureOptions, "onPaused"> {
  const { controlSocket, process, user, launch } = vm
  return {
    controlSocket,
    process,
    user,
    order: launch.restorable ? launch.config.disks : [],
    rules: rulesOf(ground),
    dir,
    home: join(ground.root, "home"),
    memoryFile: join(dir, "memory"),
    allowOverlay: true,
    qemuImg: qemu.qemuImg,
    beforePause: () => {},
    pauseExpectedMs: 30_000,
    pauseLimitMs: 30_000,
    signal: never,
  }
}

export function rulesOf(ground: Pick<Ground, "root">): AttachOptions["rules"] {
  return { hostPaths: [ground.root, join(heartbeat, "..")], dataDir: join(ground.root, "data") }
}
