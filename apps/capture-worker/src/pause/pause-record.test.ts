import { uptime } from "node:os"
import { expect, test } from "vitest"
import { isOverdue, type PauseRecord } from "./pause-record.ts"

function record(deadlineInSeconds: number, limitInSeconds: number): PauseRecord {
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
  expect(isOverdue(record(5, 100))).toBe(false)
  expect(isOverdue(record(-5, 100))).toBe(true)
  expect(isOverdue(record(-5, 100), uptime())).toBe(false)
  expect(isOverdue(record(-5, 100), uptime() - 60)).toBe(true)
})

test("no growth takes a captor past the operator's limit", () => {
  expect(isOverdue(record(-5, -1), uptime())).toBe(true)
})
