import { expect, test } from "vitest"
import { networkOf } from "./network-of.ts"

test("addresses of one /64 are one network, and an IPv4 address is its own however it is written", () => {
  expect(networkOf("2001:db8:1:2::1")).toBe(networkOf("2001:db8:1:2:ffff::9"))
  expect(networkOf("2001:db8:1:2::1")).not.toBe(networkOf("2001:db8:1:3::1"))
  expect(networkOf("::ffff:192.0.2.1")).toBe(networkOf("192.0.2.1"))
  expect(networkOf("192.0.2.1")).not.toBe(networkOf("192.0.2.2"))
  for (const text of ["", "unknown", "x".repeat(10_000)]) expect(networkOf(text)).toBeUndefined()
})
