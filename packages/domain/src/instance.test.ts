import { expect, test } from "vitest"
import { instanceStatesBefore } from "./instance.ts"

test.each([
  ["Created", []],
  ["Initializing", ["Created", "Shutdown", "Stopped", "Standby"]],
  ["Running", ["Initializing", "Shutdown", "Stopped", "Standby", "Unknown"]],
  ["Paused", []],
  ["Shutdown", ["Initializing", "Running", "Unknown"]],
  ["Stopped", ["Created", "Initializing", "Running", "Shutdown", "Stopped", "Standby", "Unknown"]],
  ["Standby", ["Initializing", "Running", "Shutdown", "Stopped", "Standby", "Unknown"]],
  ["Unknown", ["Initializing", "Running"]],
] as const)("an instance becomes %s only from %j", (to, from) => {
  expect(instanceStatesBefore(to)).toEqual(from)
})
