import type { EventEnvelope } from "@stillframe/domain/events"
import { expect, test } from "vitest"
import { openWindow, type EventWindow } from "./window.ts"

function events(first: number, last: number): EventEnvelope[] {
  return Array.from({ length: last - first + 1 }, (_, index) => ({
    id: "a",
    sequence: first + index,
    type: "snapshot.created",
    occurred_at: "2026-01-01T00:00:00.000Z",
    subject: { kind: "snapshot", id: "a" },
    data: { id: "a" } as EventEnvelope["data"],
  }))
}

function sequencesAfter(window: EventWindow, position: number, limit = 100): number[] {
  return window.after(position, limit).map(({ event }) => event.sequence)
}

test("a new window holds its head and nothing before it", () => {
  const window = openWindow(7)

  expect([window.holds(7), window.holds(6)]).toEqual([true, false])
  expect(sequencesAfter(window, 7)).toEqual([])
})

test("what was appended is found by any position that is held, a few at a time", () => {
  const window = openWindow(7)
  window.append(events(8, 10))
  window.append(events(11, 12))

  expect(window.head).toBe(12)
  expect(sequencesAfter(window, 7)).toEqual([8, 9, 10, 11, 12])
  expect(sequencesAfter(window, 9, 2)).toEqual([10, 11])
  expect(sequencesAfter(window, 12)).toEqual([])
})

test("a position ahead of the head is held, and nothing comes after it until it is reached", () => {
  const window = openWindow(7)
  window.append(events(8, 10))

  expect([window.holds(20), sequencesAfter(window, 20)]).toEqual([true, []])
})

test("the oldest go when there are too many, or too many bytes", () => {
  const few = openWindow(0, { eventsMax: 3, bytesMax: Infinity })
  const one = openWindow(0, { eventsMax: 3, bytesMax: 300 })
  const none = openWindow(0, { eventsMax: 3, bytesMax: 10 })

  for (const window of [few, one, none]) window.append(events(1, 5))

  expect(sequencesAfter(few, 2)).toEqual([3, 4, 5])
  expect([few.holds(2), few.holds(1)]).toEqual([true, false])
  expect([one.holds(4), one.holds(3)]).toEqual([true, false])
  expect([none.holds(5), none.holds(4)]).toEqual([true, false])
})

test("after a gap only what lies behind it is held", () => {
  const window = openWindow(0)
  window.append(events(1, 5))
  window.append(events(9, 10))

  expect([window.holds(8), window.holds(7), window.holds(5)]).toEqual([true, false, false])
  expect(sequencesAfter(window, 8)).toEqual([9, 10])
})
