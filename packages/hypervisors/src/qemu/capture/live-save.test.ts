import { expect, test } from "vitest"
import type { Monitor, QmpEvent } from "../monitor/qmp.ts"
import { continueDuringSave, untilStateSaved } from "./live-save.ts"

const never = new Promise<never>(() => {})

function monitorThat(execute: (command: string) => Promise<unknown>) {
  const listeners = new Set<(event: QmpEvent) => void>()
  const monitor: Monitor = {
    version: "10.0.2",
    closed: never,
    close: () => {},
    execute: execute as Monitor["execute"],
    subscribe(listener: (event: QmpEvent) => void) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
  const tell = (status: string): void => {
    const event = { event: "MIGRATION", data: { status }, timestamp: { seconds: 0, microseconds: 0 } }
    for (const listener of listeners) listener(event)
  }
  return { monitor, tell, listeners }
}

test("the count of the save before is no proof that this one holds the devices' state", async () => {
  const asked: string[] = []
  const { monitor, tell, listeners } = monitorThat(async (command) => {
    asked.push(command)
    return { ram: { normal: 0, duplicate: asked.length > 2 ? 1 : 0 } }
  })

  const saved = untilStateSaved(monitor, never)
  tell("setup")
  await new Promise(setImmediate)
  expect(asked).toEqual([])
  tell("active")
  await saved

  expect(asked).toHaveLength(3)
  expect(listeners.size).toBe(0)
})

test("a QEMU that can't let the guest go on before its first pages are read gets them read", async () => {
  const read = Promise.withResolvers<void>()
  const { monitor } = monitorThat(async (command) => {
    await read.promise
    return command === "query-status" ? { running: true, status: "running" } : {}
  })

  await expect(continueDuringSave(monitor, () => read.resolve())).resolves.toBeUndefined()
})

test("nothing is read for a guest that goes on at once", async () => {
  let reads = 0
  const { monitor } = monitorThat(async () => ({ running: true, status: "running" }))

  await continueDuringSave(monitor, () => reads++)

  expect(reads).toBe(0)
})
