import { isIP } from "node:net"
import ipaddr from "ipaddr.js"

export interface AddressRules {
  /** Ranges in CIDR notation that are no public addresses and may be reached all the same, also by `http://`. */
  readonly allowedCidrs: readonly string[]
  /** Never reached within those ranges: where the stack itself listens. */
  readonly stackPorts: readonly number[]
}

const wellKnownPortMax = 1_023

/** The addresses of a name; rejects when there are none to be had. */
export type Resolve = (hostname: string) => Promise<readonly string[]>

/**
 * The reason and remedy if nothing would ever be sent to a URL; otherwise undefined. A name is looked up for
 * `http://` only, which leads to no public address, and one that does not resolve now is not refused: each
 * connection is judged when it is opened.
 */
export async function urlRefusal(
  url: URL,
  rules: AddressRules,
  resolve: Resolve,
): Promise<string | undefined> {
  const { protocol } = url
  const port = Number(url.port || (protocol === "https:" ? 443 : 80))
  const hostname = url.hostname.replaceAll(/^\[|\]$/g, "")
  const known = isIP(hostname) === 0 ? knownAddresses(hostname) : [hostname]
  if (known === undefined && protocol === "https:") return undefined
  if (known === undefined && rules.allowedCidrs.length === 0) return plainRefusal
  const addresses = known ?? (await resolve(hostname).catch(() => []))
  const refusals = addresses.map((address) => addressRefusal({ address, port, protocol }, rules))
  return refusals.includes(undefined) ? undefined : refusals[0]
}

/** The ports of databases and queues, whose URLs are among the settings. */
export function portsOf(urls: readonly (string | undefined)[]): number[] {
  return urls.flatMap((url) => {
    if (url === undefined) return []
    const { port, protocol } = new URL(url)
    return [port === "" ? (protocol.startsWith("redis") ? redisPort : postgresPort) : Number(port)]
  })
}

const redisPort = 6_379
const postgresPort = 5_432

const plainRefusal =
  "http:// leads only to the ranges in WEBHOOK_ALLOWED_CIDRS, and there is none; use an https:// URL, or add the receiver's range"

/** RFC 6761: these names are never anything else. */
function knownAddresses(hostname: string): string[] | undefined {
  return /(^|\.)localhost\.?$/.test(hostname) ? ["127.0.0.1", "::1"] : undefined
}

/** The reason and remedy if a connection must not be opened; undefined if it may. */
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
