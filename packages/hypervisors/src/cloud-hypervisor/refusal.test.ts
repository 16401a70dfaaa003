import { expect, test } from "vitest"
import { refusal } from "./refusal.ts"

test.each([
  {
    body: '["Error from API","The VM could not be paused","Cannot pause VM"]',
    says: "cloud-hypervisor refused vm.pause: The VM could not be paused: Cannot pause VM; look at",
  },
  {
    body: "Error from API: The VM could not be paused: Cannot pause VM",
    says: "cloud-hypervisor refused vm.pause: The VM could not be paused: Cannot pause VM; look at",
  },
  { body: "", says: "cloud-hypervisor refused vm.pause: status 500 without a reason; look at" },
  { body: "one\nline\r\nof three", says: "cloud-hypervisor refused vm.pause: one line of three; look at" },
])("what the VMM said is one line: $says", ({ body, says }) => {
  expect(refusal("vm.pause", { status: 500, body }).message).toContain(says)
})

test("an answer without an end is cut", () => {
  expect(refusal("vm.pause", { status: 500, body: "x".repeat(10_000) }).message.length).toBeLessThan(700)
})

test.each([
  ["No space left on device (os error 28)", "insufficient_storage"],
  ["Disk quota exceeded (os error 122)", "insufficient_storage"],
  ["Cannot allocate memory (os error 12)", "insufficient_resources"],
  ["VM is not running", "hypervisor_failed"],
])("%s is %s", (reason, code) => {
  expect(
    refusal("vm.snapshot", { status: 500, body: JSON.stringify(["Error from API", reason]) }),
  ).toMatchObject({
    code,
  })
})
