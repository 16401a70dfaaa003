import { constants } from "node:fs"
import { access } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { builtinImage } from "@stillframe/hypervisors/images"
import type { LaunchConfig } from "@stillframe/hypervisors/launch-config"
import { qemuCapabilities } from "@stillframe/hypervisors/qemu/probe/capabilities"
import { probeAccel, probeQemu, type QemuProbe } from "@stillframe/hypervisors/qemu/probe/probe"
import type { Logger } from "@stillframe/runtime/logger"
import type { CaptureWorkerConfig } from "../config.ts"
import type { HostHypervisor } from "./host-hypervisor.ts"
import type { HostUsers } from "./host-users.ts"
import { liveCaptureOfHost } from "./live-capture-of-host.ts"
import { remembered } from "./remembered.ts"
import { adoptOnQemu, resolveLaunch } from "./resolve-launch.ts"
import { vmUsers } from "./vm-users.ts"

/**
 * Finds out what this host's QEMU can do. Throws `hypervisor_unavailable` with the remedy where there is
 * none.
 */
export async function probeHostQemu(
  config: CaptureWorkerConfig,
  { users, log }: { users: HostUsers | undefined; log: Logger },
): Promise<HostHypervisor> {
  const signal = new AbortController().signal
  const probe = await probeQemu(config.qemuBinary, signal)
  const accel = await accelerator(config, probe, { users, log })
  const kvm = accel === "kvm" ? config.kvmDevice : undefined
  const asUsers = await vmUsers(config.qemuBinary, { name: "qemu", kvm, users })
  if (asUsers.asRoot !== undefined) log.warn({ hypervisor: "qemu" }, asUsers.asRoot)
  log.info({ version: probe.version, accel }, "qemu found")
  const { version, machines } = probe
  const live = await liveCaptureOfHost(
    config,
    {
      binary: config.qemuBinary,
      version,
      machine: machines.q35,
      accel,
      ...(asUsers.trialUser && { runAs: asUsers.trialUser }),
    },
    log,
  )
  const tools: HypervisorTools = {
    name: "qemu",
    binary: config.qemuBinary,
    qemuImg: config.qemuImg,
    vmUsers: asUsers.vmUsers,
  }
  const host = { machines: probe.machines, accel, imagesDir: config.imagesDir }
  return {
    capabilities: qemuCapabilities(probe, live),
    tools,
    resolveLaunch: (stored) => resolveLaunch(stored, host),
    adopt: (guest) => adoptOnQemu(guest, host),
  }
}

async function accelerator(
  config: CaptureWorkerConfig,
  probe: QemuProbe,
  { users, log }: { users: HostUsers | undefined; log: Logger },
): Promise<LaunchConfig["accel"]> {
  if (config.accelerator !== "auto") return config.accelerator
  const canOpen = await access(config.kvmDevice, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!canOpen) return "tcg"
  const file = join(config.dataDir, "accelerator.json")
  return await remembered(file, [probe.version], async () => {
    const guest = { ...builtinImage("demo", config.imagesDir), marker: "COUNT" }
    if (guest.kernel === undefined)
      throw new StillframeError("internal_error", "the demo image has no kernel")
    log.info("trying whether kvm boots a guest")
    const asUsers = await vmUsers(config.qemuBinary, { name: "qemu", kvm: config.kvmDevice, users })
    return await probeAccel(
      config.qemuBinary,
      probe.machines.q35,
      { ...guest, kernel: guest.kernel },
      new AbortController().signal,
      asUsers.trialUser,
    )
  })
}
