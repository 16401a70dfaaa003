import type { OwnedDatabase } from "@stillframe/db/client"
import { createOperation } from "@stillframe/db/operations/operations"
import { runOperation, type OperationRunner } from "@stillframe/db/operations/run-operation"
import { StillframeError } from "@stillframe/domain/errors"
import { createLogger } from "@stillframe/runtime/logger"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"

const calledOff = new StillframeError("cancelled", "the work was called off")
const aborted = AbortSignal.abort().reason as Error
const broken = new StillframeError("hypervisor_failed", "the VM was not resumed")

interface Meanwhile {
  readonly db: OwnedDatabase
  readonly id: string
  readonly stop: AbortController
}

const cancelled = ({ db, id }: Meanwhile) =>
  db.updateTable("operations").set({ state: "cancelled" }).where("id", "=", id).execute()
const takenOver = ({ db, id }: Meanwhile) =>
  db.updateTable("operations").set({ token: "another" }).where("id", "=", id).execute()
const stopped = async ({ stop }: Meanwhile) => stop.abort()

test.each([
  ["was cancelled", cancelled, calledOff, "info: operation cancelled"],
  ["was cancelled, by an aborted call", cancelled, aborted, "info: operation cancelled"],
  ["was taken over", takenOver, calledOff, "info: operation taken over"],
  ["ends with its process", stopped, calledOff, "info: operation handed back"],
])("an operation that %s is told in one line without a stack", async (_, meanwhile, error, line) => {
  const { told, text } = await endOf(meanwhile, error)

  expect(told).toEqual([line])
  expect(text).not.toContain("stack")
})

test("a cancelled operation that fails of itself is told as a warning, with the error", async () => {
  const { told, text } = await endOf(cancelled, broken)

  expect(told).toEqual(["warn: operation not done"])
  expect(text).toContain("the VM was not resumed")
})

/** The log of an operation whose work fails with `error` after `meanwhile` has happened. */
async function endOf(
  meanwhile: (of: Meanwhile) => Promise<unknown>,
  error: Error,
): Promise<{ told: string[]; text: string }> {
  await using database = await testDatabase()
  const { db } = database
  const queue = "compress.pool"
  const id = await createOperation(db, { kind: "compress", queue })
  const stop = new AbortController()
  const lines: string[] = []
  const runner: OperationRunner = {
    db,
    queue,
    worker: "w",
    committed() {},
    log: createLogger({
      service: "test",
      level: "debug",
      destination: { write: (line) => void lines.push(line) },
    }),
    handlers: {
      compress: {
        async run() {
          await meanwhile({ db, id, stop })
          throw error
        },
        async failed() {},
      },
    },
  }
  await runOperation(runner, id, stop.signal)
  const told = lines
    .map((line) => JSON.parse(line) as { level: string; msg: string })
    .map(({ level, msg }) => `${level}: ${msg}`)
  return { told, text: lines.join() }
}
