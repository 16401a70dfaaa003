import { StillframeError, type ErrorCode } from "@stillframe/domain/errors"
import { builtinImages } from "@stillframe/domain/images"
import type { Hypervisor } from "@stillframe/domain/instance"
import { builtinImage } from "@stillframe/hypervisors/images"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { GuestRefusal } from "@stillframe/hypervisors/refusal"
import type { StoredLaunch } from "../host/resolve-launch.ts"

const bootMembers = ["kernel", "initrd", "cmdline", "machine", "disks"] as const

/**
 * The members of a launch request that a hypervisor's refusal may be about: none where all is an image's own,
 * which QEMU boots; others may not.
 */
export function suspectsOf(launch: StoredLaunch, hypervisor: Hypervisor): string[] {
  const image = Object.entries(builtinImages).find(([name]) => name === launch.image)?.[1]
  const suspects = bootMembers.filter((member) => isGiven(launch[member])).map((member) => `launch.${member}`)
  if (launch.memory_mib !== image?.memory_mib) suspects.push("launch.memory_mib")
  if (launch.vcpus !== (image?.vcpus ?? 1)) suspects.push("launch.vcpus")
  return image === undefined || hypervisor === "qemu" ? suspects : ["image", ...suspects]
}

/**
 * The same for a guest that exists: members that a caller gave at its launch, or with a fork onto another
 * hypervisor.
 */
export function partsOf(
  { kernel, initrd, cmdline, disks }: GuestConfig,
  { hypervisor, imagesDir }: { hypervisor: Hypervisor; imagesDir: string },
): string[] {
  const ours = Object.keys(builtinImages).some((name) => builtinImage(name, imagesDir).kernel === kernel)
  const parts = ours && hypervisor === "qemu" ? { disks } : { kernel, initrd, cmdline, disks }
  return Object.entries(parts).flatMap(([name, value]) => (isGiven(value) ? [name] : []))
}

function isGiven(value: string | readonly unknown[] | undefined): boolean {
  return value !== undefined && value.length > 0
}

/**
 * A refusal of the guest by its hypervisor as the mistake of whoever gave the suspects. Any other failure,
 * and a refusal of what is all ours, is returned as it is.
 */
export function blamed(
  error: unknown,
  { code, hypervisor, suspects }: { code: ErrorCode; hypervisor: Hypervisor; suspects: readonly string[] },
): unknown {
  if (!(error instanceof GuestRefusal) || suspects.length === 0) return error
  return new StillframeError(
    code,
    `${hypervisor} on this host refuses the guest; correct ${listed(suspects)}: a file of the wrong format or another architecture, or a value that it does not know`,
    { cause: error, said: error.said },
  )
}

function listed(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`)
  const last = quoted.pop() ?? ""
  return quoted.length === 0 ? last : `${quoted.join(", ")} or ${last}`
}
