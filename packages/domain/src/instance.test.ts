import { expect, test } from "vitest"
import { instanceStatesBefore } from "./instance.ts"

test.each([
  ["Created", []],
  ["Initializing", ["Created", "Shutdown", "Stopped", "Standby"]],
  ["Running", ["Initializing", "Paused", "Shutdown", "Stopped", "Standby", "Unknown"]],
  ["Paused", ["Running", "Paused", "Unknown"]],
  ["Shutdown", ["Initializing", "Running", "Paused", "Unknown"]],
  ["Stopped", ["Created", "Initializing", "Running", "Paused", "Shutdown", "Stopped", "Standby", "Unknown"]],
  ["Standby", ["Initializing", "Running", "Shutdown", "Stopped", "Standby", "Unknown"]],
  ["Unknown", ["Initializing", "Running", "Paused", "Unknown"]],
] as const)("an instance becomes %s only from %j", (to, from) => {
  expect(instanceStatesBefore(to)).toEqual(from)
})
