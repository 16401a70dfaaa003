import { expect, test } from "vitest"
import { judgeAnswer, judgeError } from "./judge.ts"

const reset = new Error("read ECONNRESET")

function answer(status: number, retryAfterMs?: number) {
  return { status, body: "", retryAfterMs }
}

/** What is waited after failures of one try, shortest first. */
function waits(attempt: number): number[] {
  return Array.from({ length: 300 }, () => judgeError(attempt, reset).retryMs ?? Number.NaN).toSorted(
    (one, other) => one - other,
  )
}

test.each([200, 201, 202, 204, 226, 299])("%d says that the event was taken", (status) => {
  expect(judgeAnswer(8, answer(status))).toEqual({
    delivered: true,
    responseStatus: status,
    responseBody: "",
  })
})

test.each([199, 300, 301, 304, 307, 308, 400, 401, 404, 410, 429, 500, 503])(
  "%d says that it was not, and is tried again",
  (status) => {
    expect(judgeAnswer(1, answer(status))).toMatchObject({
      delivered: false,
      error: `answered ${status}`,
      retryMs: expect.any(Number) as number,
    })
  },
)

test.each([
  [1, 5],
  [2, 300],
  [3, 1_800],
  [4, 7_200],
  [5, 18_000],
  [6, 36_000],
  [7, 36_000],
])(
  "after try %d what failed together comes back in %d s, give or take a fifth, and not together",
  (attempt, s) => {
    const all = waits(attempt)
    const [shortest, longest] = [all[0] ?? 0, all.at(-1) ?? 0]

    expect(shortest).toBeGreaterThanOrEqual(s * 800)
    expect(shortest).toBeLessThan(s * 900)
    expect(longest).toBeGreaterThan(s * 1_100)
    expect(longest).toBeLessThanOrEqual(s * 1_200)
  },
)

test("the eighth try is the last, whatever the receiver asks for", () => {
  expect(judgeError(8, reset)).toEqual({
    delivered: false,
    error: "cannot reach the receiver: it closed the connection. Check that it runs and what its log says.",
    retryMs: undefined,
  })
  expect(judgeAnswer(8, answer(503, 1_000)).retryMs).toBeUndefined()
})

test("who asks for more time than the schedule has gets it, who asks for less gets the schedule", () => {
  expect(judgeAnswer(1, answer(503, 60_000)).retryMs).toBe(60_000)
  expect(judgeAnswer(2, answer(503, 60_000)).retryMs).toBeGreaterThanOrEqual(240_000)
})

test.each([
  [Object.assign(new AggregateError([]), { code: "ECONNREFUSED" }), "nothing listens there"],
  [Object.assign(new Error("other side closed"), { code: "UND_ERR_SOCKET" }), "it closed the connection"],
  [
    Object.assign(new Error("certificate has expired"), { code: "CERT_HAS_EXPIRED" }),
    "its certificate has expired",
  ],
])("%s is told in our words", (error, why) => {
  expect(judgeError(1, error).error).toContain(`cannot reach the receiver: ${why}. `)
})

test("an error without words that is not known is shown by its code", () => {
  const unknown = Object.assign(new AggregateError([]), { code: "E_OTHER" })

  expect(judgeError(1, unknown).error).toBe("E_OTHER")
})
