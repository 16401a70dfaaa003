import { expect, test } from "vitest"
import { StillframeError } from "../errors.ts"
import { openOutage, openTrouble } from "./outage.ts"

function outageByHand() {
  let nowMs = 5_000
  const lines: [string, object][] = []
  const note = (fields: object, message: string): void => void lines.push([message, fields])
  const outage = openOutage(
    { info: note, warn: note },
    { lost: "it is lost", back: "it is back" },
    () => nowMs,
  )
  return { outage, lines, pass: (ms: number) => void (nowMs += ms) }
}

test("one line when it begins, with the reason and no stack, and one when it ends", () => {
  const { outage, lines, pass } = outageByHand()

  for (let tried = 0; tried < 100; tried++) {
    outage.failed(new Error("refused"))
    pass(500)
  }
  outage.worked()
  outage.worked()

  expect(lines).toEqual([
    ["it is lost", { reason: "refused", failures: 1, lastsMs: 0 }],
    ["it is back", { failures: 100, lastedMs: 50_000 }],
  ])
})

test("one line a minute while it lasts", () => {
  const { outage, lines, pass } = outageByHand()

  for (let tried = 0; tried < 360; tried++) {
    outage.failed(new Error("refused"))
    pass(500)
  }

  expect(lines.map(([, fields]) => fields)).toMatchObject([
    { lastsMs: 0 },
    { lastsMs: 60_000 },
    { lastsMs: 120_000 },
  ])
})

test("nothing while all is well, and everything again at the next time", () => {
  const { outage, lines } = outageByHand()

  outage.worked()
  outage.failed(new Error("refused"))
  outage.worked()
  outage.failed(new Error("refused"))

  expect(lines.map(([message]) => message)).toEqual(["it is lost", "it is back", "it is lost"])
})

test("the reason of a host with several addresses is that of each", () => {
  const { outage, lines } = outageByHand()

  outage.failed(new AggregateError([new Error("refused by ::1"), new Error("refused by 127.0.0.1")]))

  expect(lines[0]?.[1]).toMatchObject({ reason: "refused by ::1; refused by 127.0.0.1" })
})

test("repeated work tells an error in our words as its reason, another one with its stack, and a lost server not at all", () => {
  const lines: object[] = []
  const note = (fields: object): void => void lines.push(fields)
  const fail = (error: Error): void =>
    openTrouble({ info: note, warn: note }, { lost: "failed" }).failed(error)
  const bug = new TypeError("a bug")
  const lost = Object.assign(new Error("refused"), { code: "ECONNREFUSED" })

  fail(new StillframeError("unavailable", "Redis is full. Raise its maxmemory."))
  fail(bug)
  fail(new StillframeError("unavailable", "no answer", { cause: lost }))

  expect(lines).toEqual([
    expect.objectContaining({ code: "unavailable", reason: "Redis is full. Raise its maxmemory." }),
    expect.objectContaining({ err: bug }),
  ])
})
