import { StillframeError } from "@stillframe/domain/errors"
import type { Hypervisor } from "@stillframe/domain/instance"
import { canEnterAs } from "@stillframe/hypervisors/process/run-as"
import { vmms } from "@stillframe/hypervisors/vmms"
import type { Logger } from "@stillframe/runtime/logger"
import type { CaptureWorkerConfig } from "../config.ts"
import type { HostHypervisor } from "./host-hypervisor.ts"
import { trialUid, type HostUsers } from "./host-users.ts"
import { adoptGuest, resolveGuest } from "./resolve-launch.ts"
import { vmUsers } from "./vm-users.ts"

/**
 * Finds out what this host has beside QEMU. One that a setting names must work; one that was just found and
 * does not is not offered.
 */
export async function probeHostVmms(
  config: CaptureWorkerConfig,
  { staging, users, log }: { staging: string | undefined; users?: HostUsers | undefined; log: Logger },
): Promise<Map<Hypervisor, HostHypervisor>> {
  const found = new Map<Hypervisor, HostHypervisor>()
  for (const [name, { path: binary, setting }] of config.vmms) {
    try {
      // A shim of vz runs as we do: macOS has no such users.
      const asUsers = name === "vz" ? {} : await vmUsers(binary, { name, kvm: config.kvmDevice, users })
      const { signal } = new AbortController()
      const capabilities = await (await vmms.get(name)?.())?.probe(binary, signal, asUsers.trialUser)
      if (capabilities === undefined) continue
      if (asUsers.asRoot !== undefined) log.warn({ hypervisor: name }, asUsers.asRoot)
      log.info({ hypervisor: name, version: capabilities.version }, "hypervisor found")
      found.set(name, {
        capabilities,
        tools: {
          name,
          binary,
          qemuImg: config.qemuImg,
          vmUsers: asUsers.vmUsers,
          staging,
          ...(capabilities.restores === "same_version" && { loadsOnly: capabilities.version }),
          ...(!capabilities.compressible_memory && {
            opaqueMemory:
              capabilities.compressible_memory_reason ?? `${name} saves no memory that compresses`,
          }),
        },
        resolveLaunch: (stored) => resolveGuest(stored, config.imagesDir),
        adopt: (guest) => adoptGuest(guest, name),
      })
    } catch (err) {
      if (setting !== undefined) throw err
      log.warn({ err, hypervisor: name, binary }, "hypervisor not offered")
    }
  }
  if (staging !== undefined && users !== undefined) await assertReached(staging, found, users)
  return found
}

/** Throws `invalid_request` where the users that VMs run as can't walk to `staging`. */
async function assertReached(
  staging: string,
  found: ReadonlyMap<Hypervisor, HostHypervisor>,
  { range }: HostUsers,
): Promise<void> {
  const uid = trialUid(range)
  for (const { tools } of found.values()) {
    const { name, vmUsers: as } = tools
    if (as === undefined || (await canEnterAs(staging, { uid, gid: as.gid }, new AbortController().signal)))
      continue
    throw new StillframeError(
      "invalid_request",
      `CAPTURE_STAGING: VMs of ${name} run as users such as ${uid}, who can't walk to ${staging}; allow all users to enter the directories above it (chmod o+x), or name another directory such as /dev/shm`,
    )
  }
}
