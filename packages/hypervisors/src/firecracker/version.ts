import { StillframeError } from "@stillframe/domain/errors"

/** `1.16.1`, as `--version` and the API spell it. */
export interface FirecrackerVersion {
  readonly major: number
  readonly minor: number
  readonly text: string
}

/** The oldest whose requests and files are known here. */
const oldest = { major: 1, minor: 12 }

/**
 * Members that a request may hold only from a version on: an older one refuses the whole request for a member
 * that it does not know.
 */
const since = {
  network_overrides: { major: 1, minor: 12 },
  vsock_override: { major: 1, minor: 16 },
} as const

/** Throws `hypervisor_unavailable` for a version that is not offered, or text that holds none. */
export function parseVersion(said: string): FirecrackerVersion {
  const match = /(\d+)\.(\d+)\.\d+(-[\w.]+)?/.exec(said)
  if (match === null)
    throw new StillframeError(
      "hypervisor_unavailable",
      `${JSON.stringify(said.slice(0, 80))} names no version of Firecracker; check FIRECRACKER_BINARY`,
    )
  const version = { major: Number(match[1]), minor: Number(match[2]), text: match[0] }
  if (version.major !== oldest.major || !isAtLeast(version, oldest))
    throw new StillframeError(
      "hypervisor_unavailable",
      `Firecracker ${version.text} is not supported; install 1.12 to 1.16`,
    )
  return version
}

/** Throws `not_supported` where this version does not know a member that is needed. */
export function assertKnows(version: FirecrackerVersion, member: keyof typeof since): void {
  const first = since[member]
  if (!isAtLeast(version, first))
    throw new StillframeError(
      "not_supported",
      `Firecracker ${version.text} has no ${member}; it came with ${first.major}.${first.minor}`,
    )
}

function isAtLeast(version: FirecrackerVersion, first: { major: number; minor: number }): boolean {
  return version.major > first.major || (version.major === first.major && version.minor >= first.minor)
}
