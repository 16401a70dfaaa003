import { StillframeError } from "@stillframe/domain/errors"
import { expect, test } from "vitest"
import type { Monitor } from "../monitor/qmp.ts"
import { setUpMigration } from "./migration.ts"

interface Capability {
  capability: string
  state: boolean
}

/** A QEMU that knows these capabilities and, as a real one, refuses every other name. */
function qemuWith(known: Record<string, boolean>): Monitor {
  const execute = async (command: string, args?: object): Promise<unknown> => {
    if (command === "query-migrate-capabilities")
      return Object.entries(known).map(([capability, state]) => ({ capability, state }))
    if (command !== "migrate-set-capabilities") return {}
    for (const { capability, state } of (args as { capabilities: Capability[] }).capabilities) {
      if (!(capability in known))
        throw new StillframeError("hypervisor_failed", `Invalid parameter '${capability}'`)
      known[capability] = state
    }
    return {}
  }
  return { execute: execute as Monitor["execute"] } as Monitor
}

test("a QEMU that is too old to know a background save is set up for a plain one", async () => {
  const known = { events: false }

  await setUpMigration(qemuWith(known))

  expect(known).toEqual({ events: true })
})

test("a plain save takes back what a background save has left switched on, and nothing else", async () => {
  const known = { events: true, "background-snapshot": true, "mapped-ram": true }

  await setUpMigration(qemuWith(known))

  expect(known).toEqual({ events: true, "background-snapshot": false, "mapped-ram": true })
})

test("a background save is set up without what would spoil it", async () => {
  const known = { events: false, "background-snapshot": false, "mapped-ram": true }

  await setUpMigration(qemuWith(known), { background: true })

  expect(known).toEqual({ events: true, "background-snapshot": true, "mapped-ram": false })
})
