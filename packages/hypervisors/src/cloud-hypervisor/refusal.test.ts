import { expect, test } from "vitest"
import { GuestRefusal } from "../refusal.ts"
import { refusal } from "./refusal.ts"

test.each([
  {
    body: '["Error from API","The VM could not be paused","Cannot pause VM"]',
    said: "The VM could not be paused: Cannot pause VM",
  },
  {
    body: "Error from API: The VM could not be paused: Cannot pause VM",
    said: "The VM could not be paused: Cannot pause VM",
  },
  { body: "", said: "status 500 without a reason" },
  { body: "one\nline\r\nof three", said: "one line of three" },
])("the VMM's words are one line, for the log alone: $said", ({ body, said }) => {
  const refused = refusal("vm.pause", { status: 500, body })

  expect(refused.said).toBe(said)
  expect(refused.message).toBe("cloud-hypervisor refused vm.pause; the log of the capture-worker says why")
})

test("an answer without an end is cut", () => {
  expect(refusal("vm.pause", { status: 500, body: "x".repeat(10_000) }).said?.length).toBe(500)
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

test("a guest that the VMM refuses to make or to boot is a refusal, unless its words are about the host", () => {
  const answer = (body: string) => ({ status: 500, body })

  expect(refusal("vm.boot", answer("Cannot load kernel: invalid ELF magic"))).toBeInstanceOf(GuestRefusal)
  expect(refusal("vm.create", answer("Failed to open /dev/kvm"))).not.toBeInstanceOf(GuestRefusal)
  expect(refusal("vm.pause", answer("Cannot pause VM"))).not.toBeInstanceOf(GuestRefusal)
})
