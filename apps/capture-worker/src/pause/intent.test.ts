import { uptime } from "node:os"
import { expect, test } from "vitest"
import { isOverdue, type PauseIntent } from "./intent.ts"

function intent(deadlineInSeconds: number, limitInSeconds: number): PauseIntent {
  return {
    clusterId: "c",
    instanceId: "i",
    hypervisor: { name: "qemu", binary: "/usr/bin/qemu", qemuImg: "/usr/bin/qemu-img" },
    generation: 1,
    operationId: "o",
    token: "t",
    snapshotId: "s",
    captor: { pid: 1, startTime: 1, bootId: "b" },
    wasRunning: true,
    deadlineUptime: uptime() + deadlineInSeconds,
    limitUptime: uptime() + limitInSeconds,
  }
}

test("a captor is overdue after its deadline, unless its save has grown lately", () => {
  expect(isOverdue(intent(5, 100))).toBe(false)
  expect(isOverdue(intent(-5, 100))).toBe(true)
  expect(isOverdue(intent(-5, 100), uptime())).toBe(false)
  expect(isOverdue(intent(-5, 100), uptime() - 60)).toBe(true)
})

test("no growth takes a captor past the operator's limit", () => {
  expect(isOverdue(intent(-5, -1), uptime())).toBe(true)
})
