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
  expect(judgeError(8, reset)).toEqual({ delivered: false, error: "read ECONNRESET", retryMs: undefined })
  expect(judgeAnswer(8, answer(503, 1_000)).retryMs).toBeUndefined()
})

test("who asks for more time than the schedule has gets it, who asks for less gets the schedule", () => {
  expect(judgeAnswer(1, answer(503, 60_000)).retryMs).toBe(60_000)
  expect(judgeAnswer(2, answer(503, 60_000)).retryMs).toBeGreaterThanOrEqual(240_000)
})

test("an error without words is shown by its code", () => {
  const refused = Object.assign(new AggregateError([]), { code: "ECONNREFUSED" })

  expect(judgeError(1, refused).error).toBe("ECONNREFUSED")
})
