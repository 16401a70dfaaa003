import { lookup as systemLookup, type LookupAddress, type LookupAllOptions } from "node:dns"
import { isIP, type LookupFunction } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"
import { addressRefusal, type AddressRules } from "@stillframe/runtime/webhook-addresses"
import { Agent, buildConnector } from "undici"

/** As `dns.lookup` answers when all addresses are asked for. */
export type Lookup = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void

const connectMs = 10_000

/** Two ways to the same receivers. */
export interface Agents {
  /** Uses a connection again, for some seconds. */
  readonly keeping: Agent
  /** Opens a connection for each request. */
  readonly fresh: Agent
  destroy(): Promise<void>
}

/**
 * Agents that connect to public addresses by `https://`, and to allowed ranges, and nowhere else. The check
 * is made on each address that a connection is about to be opened to, so a name that changes its mind after a
 * check is no way in.
 */
export function guardedAgents(rules: AddressRules, lookup: Lookup = systemLookup): Agents {
  const connect = guardedConnector(rules, lookup)
  const [keeping, fresh] = [new Agent({ connect }), new Agent({ connect, pipelining: 0 })]
  return {
    keeping,
    fresh,
    async destroy() {
      await Promise.all([keeping.destroy(), fresh.destroy()])
    },
  }
}

function guardedConnector(rules: AddressRules, lookup: Lookup): buildConnector.connector {
  return (target, callback) => {
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
  }
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
