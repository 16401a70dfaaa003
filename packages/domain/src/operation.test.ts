import { expect, test } from "vitest"
import { countsAsTry, retryDelayMs } from "./operation.ts"

test("a capture that may succeed is tried twice, since each try pauses the VM", () => {
  expect(retryDelayMs("capture", 1, "insufficient_storage")).toBe(1_000)
  expect(retryDelayMs("capture", 2, "insufficient_storage")).toBeUndefined()
})

test("what can't succeed is not tried again", () => {
  expect(retryDelayMs("compress", 1, "corrupted")).toBeUndefined()
})

test("somebody waits for a launch's one answer", () => {
  expect(retryDelayMs("launch", 1, "hypervisor_failed")).toBeUndefined()
})

test("work whose directory is away waits for it however long, and uses up no try", () => {
  for (const kind of ["capture", "compress", "verify", "delete", "standby"] as const)
    expect(retryDelayMs(kind, 100, "storage_unavailable")).toBe(15_000)
  expect(countsAsTry("storage_unavailable")).toBe(false)
  expect(countsAsTry("storage_failed")).toBe(true)
})

test("who waits for a fork is told that its directory is away", () => {
  expect(retryDelayMs("fork", 1, "storage_unavailable")).toBeUndefined()
})

test("waiting doubles with each try and never exceeds five minutes", () => {
  expect([1, 2, 3, 4].map((attempt) => retryDelayMs("compress", attempt, "storage_failed"))).toEqual([
    2_000, 4_000, 8_000, 16_000,
  ])
  expect(retryDelayMs("delete", 1_000, "unavailable")).toBe(300_000)
})
