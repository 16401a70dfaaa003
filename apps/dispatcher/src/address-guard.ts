import { lookup as systemLookup, type LookupAddress, type LookupAllOptions } from "node:dns"
import { isIP, type LookupFunction } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"
import ipaddr from "ipaddr.js"
import { Agent, buildConnector } from "undici"

export interface AddressRules {
  /** Ranges in CIDR notation that are no public addresses and may be reached all the same, also by `http://`. */
  readonly allowedCidrs: readonly string[]
  /** Never reached within those ranges: where the stack itself listens. */
  readonly stackPorts: readonly number[]
}

/** As `dns.lookup` answers when all addresses are asked for. */
export type Lookup = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void

const connectMs = 10_000
const wellKnownPortMax = 1_023

/**
 * An agent that connects to public addresses by `https://`, and to allowed ranges, and nowhere else. The check is made on
 * each address that a connection is about to be opened to, so a name that changes its mind after a check is no way in.
 */
export function guardedAgent(rules: AddressRules, lookup: Lookup = systemLookup): Agent {
  return new Agent({
    connect(target, callback) {
      const { protocol } = target
      const port = Number(target.port || (protocol === "https:" ? 443 : 80))
      const refusal = (address: string): string | undefined =>
        addressRefusal({ address, port, protocol }, rules)
      const hostname = target.hostname.replaceAll(/^\[|\]$/g, "")
      // An address in the URL is never looked up.
      const refused = isIP(hostname) === 0 ? undefined : refusal(hostname)
      if (refused !== undefined) {
        callback(new StillframeError("forbidden", refused), null)
        return
      }
      buildConnector({ timeout: connectMs, lookup: guardedLookup(lookup, refusal) })(target, callback)
    },
  })
}

/** Leaves out the addresses that are refused; when all are, fails with the reason of the first. */
function guardedLookup(lookup: Lookup, refusal: (address: string) => string | undefined): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      const allowed = addresses?.filter(({ address }) => refusal(address) === undefined) ?? []
      const [first] = allowed
      if (error !== null) callback(error, "")
      else if (first === undefined)
        callback(new StillframeError("forbidden", reasonOf(addresses, refusal)), "")
      else if (options.all === true) callback(null, allowed)
      else callback(null, first.address, first.family)
    })
  }
}

function reasonOf(
  addresses: readonly { address: string }[],
  refusal: (address: string) => string | undefined,
): string {
  const [first] = addresses
  return (first && refusal(first.address)) ?? "the name has no address; check the webhook's URL"
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
