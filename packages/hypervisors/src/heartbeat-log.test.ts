import { expect, test } from "vitest"
import { heartbeatGap, heartbeats } from "./heartbeat-log.ts"

test("ticks that go on by one with the same sum have no gap, and half a line at the end is none", () => {
  const log = "0000000f 12ab34cd\n00000010 12ab34cd\n00000011 12a"

  expect(heartbeats(log)).toEqual([
    { tick: 15, sum: "12ab34cd" },
    { tick: 16, sum: "12ab34cd" },
  ])
  expect(heartbeatGap(log)).toBeUndefined()
})

test.each([
  ["a tick that is missing", "00000001 aaaaaaaa\n00000003 aaaaaaaa\n"],
  ["a tick that comes twice", "00000001 aaaaaaaa\n00000001 aaaaaaaa\n"],
  ["another sum", "00000001 aaaaaaaa\n00000002 aaaaaaab\n"],
  ["a line of something else", "00000001 aaaaaaaa\nSeaBIOS\n"],
])("%s is a gap", (_, log) => {
  expect(heartbeatGap(log)).toBe(log.trim().replace("\n", ", then "))
})

test("a guest that has said nothing is no proof", () => {
  expect(heartbeatGap("")).toBe("no line at all")
})
