import { setImmediate } from "node:timers/promises"
import type { Job } from "bullmq"
import { expect, test } from "vitest"
import { ZodError } from "zod"
import { startConsumer } from "./consumer.ts"

const bullJob = (data: unknown): Job => ({ data }) as Job

/** A consumer whose jobs the test hands out itself. */
function consumerByHand(close: () => Promise<void> = () => Promise.resolve()) {
  const seen: string[] = []
  const errors: Error[] = []
  let disconnected = false
  let process: (job: Job) => Promise<void> = () => Promise.resolve()
  const consumer = startConsumer(
    { concurrency: 1, handler: (id) => Promise.resolve(void seen.push(id)) },
    (processor) => {
      process = processor
      return { close, disconnect: () => Promise.resolve(void (disconnected = true)) }
    },
    (error) => void errors.push(error),
  )
  return {
    consumer,
    seen,
    errors,
    process: (data: unknown) => process(bullJob(data)),
    disconnected: () => disconnected,
  }
}

test("a job's payload is the operation's id and nothing else", async () => {
  const { process, seen } = consumerByHand()

  await process({ operationId: "a1" })

  expect(seen).toEqual(["a1"])
  for (const malformed of [
    undefined,
    null,
    "a1",
    {},
    { operationId: 1 },
    { operationId: "a1", state: "queued" },
  ]) {
    await expect(process(malformed)).rejects.toThrow(ZodError)
  }
  expect(seen).toEqual(["a1"])
})

test("closing gives up on a worker whose engine does not answer", async () => {
  const { consumer, errors, disconnected } = consumerByHand(() => new Promise(() => undefined))

  await consumer.close()

  expect(disconnected()).toBe(true)
  expect(errors.map(({ message }) => message)).toEqual([
    "closing a queue's worker took more than 2 s; check that the queue is up",
  ])
})

test("a job that was fetched before the end and begins after it is handed back before the consumer is closed", async () => {
  const ended: string[] = []
  const consumer = startConsumer(
    {
      concurrency: 1,
      async handler(id, signal) {
        await setImmediate()
        ended.push(`${id} ${signal.aborted ? "handed back" : "done"}`)
      },
    },
    (processor) => ({
      async close() {
        await setImmediate()
        await processor(bullJob({ operationId: "a1" }))
      },
      disconnect: () => Promise.resolve(),
    }),
    (error) => expect.unreachable(error.message),
  )

  await consumer.close()

  expect(ended).toEqual(["a1 handed back"])
})
