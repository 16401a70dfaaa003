import { expect, test } from "vitest"
import { addressRefusal, urlRefusal } from "./webhook-addresses.ts"

const nothing = { allowedCidrs: [], stackPorts: [] }
const https = { port: 443, protocol: "https:" }

test.each([
  "127.0.0.1",
  "10.1.2.3",
  "172.16.0.1",
  "192.168.1.1",
  "169.254.169.254",
  "100.64.0.1",
  "0.0.0.0",
  "224.0.0.1",
  "255.255.255.255",
  "192.0.2.1",
  "198.18.0.1",
  "::",
  "::1",
  "::7f00:1",
  "::ffff:127.0.0.1",
  "::ffff:10.0.0.1",
  "64:ff9b::7f00:1",
  "64:ff9b::8.8.8.8",
  "64:ff9b:1::1",
  "2002:7f00:1::",
  "2001::1",
  "2001:db8::1",
  "fe80::1",
  "fec0::1",
  "fd00::1",
  "ff02::1",
  "5f00::1",
])("%s is not public, so it is refused until its range is allowed", (address) => {
  expect(addressRefusal({ address, ...https }, nothing)).toMatch(/WEBHOOK_ALLOWED_CIDRS/)
})

test.each(["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])(
  "%s is public: https only",
  (address) => {
    expect(addressRefusal({ address, ...https }, nothing)).toBe(undefined)
    expect(addressRefusal({ address, port: 8443, protocol: "https:" }, nothing)).toBe(undefined)
    expect(addressRefusal({ address, port: 80, protocol: "http:" }, nothing)).toMatch(/https/)
  },
)

const allowed = { allowedCidrs: ["10.0.0.0/8", "fd00::/8"], stackPorts: [8080, 443] }

test.each([
  ["10.1.2.3", 80, true],
  ["10.1.2.3", 3000, true],
  ["::ffff:10.1.2.3", 3000, true],
  ["fd00::1", 3000, true],
  ["10.1.2.3", 22, false],
  ["10.1.2.3", 1023, false],
  ["10.1.2.3", 8080, false],
  ["10.1.2.3", 443, false],
  ["11.0.0.1", 3000, false],
  ["127.0.0.1", 3000, false],
])("inside allowed ranges http reaches %s on port %d: %s", (address, port, reached) => {
  expect(addressRefusal({ address, port, protocol: "http:" }, allowed) === undefined).toBe(reached)
})

const loopback = { allowedCidrs: ["127.0.0.0/8"], stackPorts: [8080] }
const unresolved = () => Promise.reject(new Error("no such name"))

test.each([
  ["https://127.0.0.1/", /127\.0\.0\.1.*WEBHOOK_ALLOWED_CIDRS/],
  ["https://2130706433/", /127\.0\.0\.1.*WEBHOOK_ALLOWED_CIDRS/],
  ["https://0x7f.1/", /127\.0\.0\.1.*WEBHOOK_ALLOWED_CIDRS/],
  ["https://127.0.0.1./", /127\.0\.0\.1.*WEBHOOK_ALLOWED_CIDRS/],
  ["https://[::1]/", /::1.*WEBHOOK_ALLOWED_CIDRS/],
  ["https://[::ffff:10.0.0.1]/", /WEBHOOK_ALLOWED_CIDRS/],
  ["https://[64:ff9b::a00:1]/", /WEBHOOK_ALLOWED_CIDRS/],
  ["https://169.254.169.254/latest", /WEBHOOK_ALLOWED_CIDRS/],
  ["https://LOCALHOST/", /WEBHOOK_ALLOWED_CIDRS/],
  ["https://localhost./", /WEBHOOK_ALLOWED_CIDRS/],
  ["https://a.localhost:3000/", /WEBHOOK_ALLOWED_CIDRS/],
  ["http://receiver.example/", /WEBHOOK_ALLOWED_CIDRS/],
  ["http://8.8.8.8/", /https/],
])("without a setting, nothing is ever sent to %s", async (url, reason) => {
  expect(await urlRefusal(new URL(url), nothing, unresolved)).toMatch(reason)
})

test.each([
  ["https://receiver.example/", true],
  ["https://notlocalhost/", true],
  ["https://8.8.8.8:8443/", true],
  ["http://receiver.example/", true],
  ["http://127.0.0.1:3000/", true],
  ["http://localhost:3000/", true],
  ["http://localhost:22/", false],
  ["http://8.8.8.8/", false],
  ["https://10.0.0.1/", false],
  ["https://[::1]/", false],
])("where loopback is allowed, something may be sent to %s: %s", async (url, sent) => {
  expect((await urlRefusal(new URL(url), loopback, unresolved)) === undefined).toBe(sent)
})

test.each([
  ["http://public.example/", ["8.8.8.8"], /8\.8\.8\.8 is public; use an https/],
  ["http://public.example/", ["8.8.8.8", "127.0.0.1"], /^$/],
  ["http://inside.example/", ["127.0.0.1"], /^$/],
  ["http://inside.example:8080/", ["127.0.0.1"], /port 8080 of 127\.0\.0\.1/],
  ["http://localhost:8080/", [], /port 8080 of 127\.0\.0\.1/],
  ["http://nowhere.example/", [], /^$/],
  ["https://public.example/", ["10.0.0.1"], /^$/],
])("a name that plain http leads to is looked up: %s at %j", async (url, addresses, reason) => {
  const refusal = await urlRefusal(new URL(url), loopback, async () => addresses)
  expect(refusal ?? "").toMatch(reason)
})
