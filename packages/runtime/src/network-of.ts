import ipaddr from "ipaddr.js"

/**
 * The /64 of an IPv6 address, as one host may have all of it, or the IPv4 address. Undefined for a text that
 * is neither.
 */
export function networkOf(address: string): string | undefined {
  if (!ipaddr.isValid(address)) return undefined
  const parsed = ipaddr.process(address)
  return parsed.kind() === "ipv4" ? parsed.toString() : parsed.toByteArray().slice(0, 8).join(".")
}
