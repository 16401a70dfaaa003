import { expect, test } from "vitest"
import { endsInDescription } from "./memory-stream.ts"

function stream(json: string): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(json.length)
  return Buffer.concat([Buffer.from([6, 0, 0, 0, 1, 9, 9, 0, 6]), length, Buffer.from(json)])
}

test("a stream ends in a description of its devices", () => {
  expect(endsInDescription(stream('{"devices":[]}'))).toBe(true)
})

test.each([1, 5, 14, 18])("a stream that lacks its last %i bytes is not whole", (missing) => {
  const whole = stream('{"devices":[]}')

  expect(endsInDescription(whole.subarray(0, whole.length - missing))).toBe(false)
})

test("a description that is no JSON is not whole", () => {
  expect(endsInDescription(stream('{"devices":'))).toBe(false)
})
