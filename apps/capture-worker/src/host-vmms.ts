import type { Hypervisor } from "@stillframe/domain/instance"
import { vmms } from "@stillframe/hypervisors/vmms"
import type { Logger } from "@stillframe/runtime/logger"
import type { CaptureWorkerConfig } from "./config.ts"
import { resolveGuest } from "./resolve-launch.ts"
import type { HostHypervisor } from "./worker.ts"

/**
 * Finds out what this host has beside QEMU. One that a setting names must work; one that was just found and does not is not
 * offered.
 */
export async function probeHostVmms(
  config: CaptureWorkerConfig,
  log: Logger,
): Promise<Map<Hypervisor, HostHypervisor>> {
  const found = new Map<Hypervisor, HostHypervisor>()
  for (const [name, { path: binary, setting }] of config.vmms) {
    try {
      const capabilities = await vmms.get(name)?.probe(binary, new AbortController().signal)
      if (capabilities === undefined) continue
      log.info({ hypervisor: name, version: capabilities.version }, "hypervisor found")
      found.set(name, {
        capabilities,
        tools: {
          name,
          binary,
          qemuImg: config.qemuImg,
          ...(capabilities.restores === "same_version" && { loadsOnly: capabilities.version }),
        },
        resolveLaunch: (stored) => resolveGuest(stored, config.imagesDir),
      })
    } catch (err) {
      if (setting !== undefined) throw err
      log.warn({ err, hypervisor: name, binary }, "hypervisor not offered")
    }
  }
  return found
}
