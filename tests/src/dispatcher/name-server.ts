import { createSocket } from "node:dgram"
import { Resolver } from "node:dns/promises"
import { once } from "node:events"
import { isIPv6 } from "node:net"
import type { Lookup } from "@stillframe/dispatcher/address-guard"

export interface NameServer extends AsyncDisposable {
  /** Asks this server, for IPv4 and IPv6 addresses, and nobody else. */
  readonly lookup: Lookup
  /** Names as they were looked up, one entry for each look-up of their IPv4 addresses. */
  readonly asked: readonly string[]
}

const typeA = 1
const typeAaaa = 28

/** A DNS server on loopback. `answer` gives the addresses of a name at its n-th look-up, counted from 1. */
export async function startNameServer(
  answer: (name: string, lookup: number) => readonly string[],
): Promise<NameServer> {
  const asked: string[] = []
  const socket = createSocket("udp4")
  socket.on("message", (query, { port, address }) => {
    const { name, type, question } = readQuestion(query)
    if (type === typeA) asked.push(name)
    const addresses = answer(name, Math.max(1, asked.filter((other) => other === name).length)).filter(
      (known) => type === (isIPv6(known) ? typeAaaa : typeA),
    )
    socket.send(response(query, question, addresses), port, address)
  })
  socket.bind(0, "127.0.0.1")
  await once(socket, "listening")
  const resolver = new Resolver()
  resolver.setServers([`127.0.0.1:${socket.address().port}`])

  async function lookUp(name: string, callback: Parameters<Lookup>[2]): Promise<void> {
    // One after the other, so that a look-up has one number.
    const v4 = await resolver.resolve4(name).catch(none)
    const v6 = await resolver.resolve6(name).catch(none)
    callback(null, [
      ...v4.map((address) => ({ address, family: 4 })),
      ...v6.map((address) => ({ address, family: 6 })),
    ])
  }

  return {
    asked,
    lookup(hostname, _options, callback) {
      void lookUp(hostname, callback)
    },
    async [Symbol.asyncDispose]() {
      resolver.cancel()
      socket.close()
      await once(socket, "close")
    },
  }
}

function none(): string[] {
  return []
}

const headerBytes = 12

/** RFC 1035, section 4.1.2. */
function readQuestion(query: Buffer): { name: string; type: number; question: Buffer } {
  const labels: string[] = []
  let at = headerBytes
  for (let length = query.readUInt8(at); length > 0; length = query.readUInt8(at)) {
    labels.push(query.toString("ascii", at + 1, at + 1 + length))
    at += 1 + length
  }
  return {
    name: labels.join("."),
    type: query.readUInt16BE(at + 1),
    question: query.subarray(headerBytes, at + 5),
  }
}

/** Sections 4.1.1 and 4.1.3; to be kept for no time. */
function response(query: Buffer, question: Buffer, addresses: readonly string[]): Buffer {
  const header = Buffer.alloc(headerBytes)
  query.copy(header, 0, 0, 2)
  header.writeUInt16BE(0x8180, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(addresses.length, 6)
  const records = addresses.map((address) => {
    const bytes = isIPv6(address) ? bytesOfIPv6(address) : Buffer.from(address.split(".").map(Number))
    const record = Buffer.alloc(12)
    // The name is the question's.
    record.writeUInt16BE(0xc00c, 0)
    record.writeUInt16BE(isIPv6(address) ? typeAaaa : typeA, 2)
    record.writeUInt16BE(1, 4)
    record.writeUInt16BE(bytes.length, 10)
    return Buffer.concat([record, bytes])
  })
  return Buffer.concat([header, question, ...records])
}

/** RFC 4291, section 2.2, where nothing is written as IPv4. */
function bytesOfIPv6(address: string): Buffer {
  const [front = [], back = []] = address
    .split("::")
    .map((side) => side.split(":").filter((group) => group !== ""))
  const groups = [...front, ...Array.from({ length: 8 - front.length - back.length }, () => "0"), ...back]
  return Buffer.from(groups.map((group) => group.padStart(4, "0")).join(""), "hex")
}
