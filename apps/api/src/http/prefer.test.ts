import { expect, test } from "vitest"
import { heldMs, parsePrefer } from "./prefer.ts"

test("preferences are read in any order and case, with parameters and quotes", () => {
  expect(parsePrefer(undefined)).toEqual({ respondAsync: false })
  expect(parsePrefer("respond-async")).toEqual({ respondAsync: true })
  expect(parsePrefer('return=minimal, Respond-Async, WAIT = "7"; x=1')).toEqual({
    respondAsync: true,
    waitSeconds: 7,
  })
  expect(parsePrefer("wait=3, wait=9").waitSeconds).toBe(3)
})

test("a wait is at most 55 seconds, and one that can't be read is ignored", () => {
  expect(parsePrefer("wait=600").waitSeconds).toBe(55)
  expect(parsePrefer("wait=999999999").waitSeconds).toBe(55)
  for (const header of ["wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "await=3", "wait=9999999999"])
    expect(parsePrefer(header)).toEqual({ respondAsync: false })
})

test("wait counts for more than respond-async, and both for more than the default", () => {
  expect(heldMs(parsePrefer(undefined), { seconds: 55 })).toBe(55_000)
  expect(heldMs(parsePrefer("respond-async"), { seconds: 55 })).toBe(0)
  expect(heldMs(parsePrefer("respond-async, wait=10"), { seconds: 55 })).toBe(10_000)
  expect(heldMs(parsePrefer("wait=0"), { seconds: 55 })).toBe(0)
})
