import { isIP } from "node:net"
import ipaddr from "ipaddr.js"

export interface AddressRules {
  /** Ranges in CIDR notation that are no public addresses and may be reached all the same, also by `http://`. */
  readonly allowedCidrs: readonly string[]
  /** Never reached within those ranges: where the stack itself listens. */
  readonly stackPorts: readonly number[]
}

const wellKnownPortMax = 1_023

/**
 * Why nothing would ever be sent to a URL, ending in what to do; undefined when something may. A name is not looked up:
 * what it leads to is judged when a connection is opened.
 */
export function urlRefusal(url: URL, allowedCidrs: readonly string[]): string | undefined {
  const { protocol } = url
  const port = Number(url.port || (protocol === "https:" ? 443 : 80))
  const hostname = url.hostname.replaceAll(/^\[|\]$/g, "")
  const addresses = isIP(hostname) === 0 ? knownAddresses(hostname) : [hostname]
  if (addresses === undefined)
    return protocol === "https:" || allowedCidrs.length > 0 ? undefined : plainRefusal
  const refusals = addresses.map((address) =>
    addressRefusal({ address, port, protocol }, { allowedCidrs, stackPorts: [] }),
  )
  return refusals.includes(undefined) ? undefined : refusals[0]
}

const plainRefusal =
  "http:// leads only to the ranges in WEBHOOK_ALLOWED_CIDRS, and there is none; use an https:// URL, or add the receiver's range"

/** RFC 6761: these names are never anything else. */
function knownAddresses(hostname: string): string[] | undefined {
  return /(^|\.)localhost\.?$/.test(hostname) ? ["127.0.0.1", "::1"] : undefined
}

/** Why a connection may not be opened, ending in what to do; undefined when it may. */
export function addressRefusal(
  { address, port, protocol }: { address: string; port: number; protocol: string },
  { allowedCidrs, stackPorts }: AddressRules,
): string | undefined {
  // An IPv4 address that is written as an IPv6 one is judged as the former.
  const parsed = ipaddr.process(address)
  if (!isAllowed(parsed, allowedCidrs)) {
    if (!isPublic(parsed)) return `address ${address} is not public; add its range to WEBHOOK_ALLOWED_CIDRS`
    return protocol === "https:" ? undefined : `address ${address} is public; use an https:// URL`
  }
  const webPort = port === 80 || port === 443
  if (stackPorts.includes(port) || (port <= wellKnownPortMax && !webPort)) {
    return `port ${port} of ${address} is not open to webhooks; use 80, 443 or one above ${wellKnownPortMax} that Stillframe itself doesn't use`
  }
  return undefined
}

function isAllowed(address: ipaddr.IPv4 | ipaddr.IPv6, cidrs: readonly string[]): boolean {
  return cidrs.some((cidr) => {
    const [range, bits] = ipaddr.parseCIDR(cidr)
    return range.kind() === address.kind() && address.match(range, bits)
  })
}

// The block from which IANA gives out global unicast addresses.
const globalUnicast = ipaddr.IPv6.parseCIDR("2000::/3")

function isPublic(address: ipaddr.IPv4 | ipaddr.IPv6): boolean {
  if (address.range() !== "unicast") return false
  return address instanceof ipaddr.IPv4 || address.match(globalUnicast)
}
