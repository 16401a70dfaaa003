import { fork } from "node:child_process"
import { once } from "node:events"
import { createId } from "@stillframe/domain/ids"
import type { Job } from "@stillframe/queue/contract"
import { engineKinds, testQueue } from "@stillframe/testing/queue-engines"
import { describe, expect, test, vi } from "vitest"

function newJob(wake = 0): Job {
  return { queue: "capture.a", id: createId(), wake }
}

/** A handler that notes what it was handed and, until `release`d, does not return. */
function heldHandler() {
  const seen: string[] = []
  const held = Promise.withResolvers<void>()
  return {
    seen,
    release: () => held.resolve(),
    handler: async (id: string) => {
      seen.push(id)
      await held.promise
    },
  }
}

/** A handler that notes what it was handed and returns at once. */
function notingHandler() {
  const seen: string[] = []
  return { seen, handler: (id: string) => Promise.resolve(void seen.push(id)) }
}

describe.each(engineKinds)("the queue on %s", (kind) => {
  test("hands a job's operation id to the consumer of its queue", async () => {
    await using queue = await testQueue(kind)
    const mine = notingHandler()
    const others = notingHandler()
    const job = newJob()

    await queue.engine.consume("capture.a", { concurrency: 1, handler: mine.handler })
    await queue.engine.consume("capture.b", { concurrency: 1, handler: others.handler })
    await queue.engine.add([job])

    await expect.poll(() => mine.seen).toEqual([job.id])
    await expect.poll(() => queue.engine.unfinished([job])).toEqual(new Set())
    expect(others.seen).toEqual([])
    expect(queue.errors).toEqual([])
  })

  test("ignores an id that it still has, waiting or active", async () => {
    await using queue = await testQueue(kind)
    const { seen, handler, release } = heldHandler()
    const job = newJob()

    await queue.engine.add([job])
    await queue.engine.add([job])
    await queue.engine.consume("capture.a", { concurrency: 4, handler })
    await expect.poll(() => seen).toEqual([job.id])
    await queue.engine.add([job])
    const later = newJob()
    await queue.engine.add([later])
    await expect.poll(() => seen).toContain(later.id)

    expect(seen).toEqual([job.id, later.id])
    release()
  })

  test("takes an operation again under a new wake, also while the old job is active", async () => {
    await using queue = await testQueue(kind)
    const { seen, handler, release } = heldHandler()
    const job = newJob()

    await queue.engine.consume("capture.a", { concurrency: 2, handler })
    await queue.engine.add([job])
    await expect.poll(() => seen).toEqual([job.id])
    await queue.engine.add([{ ...job, wake: 1 }])

    await expect.poll(() => seen).toEqual([job.id, job.id])
    release()
  })

  test("tells jobs that wait or are worked on from those that are gone", async () => {
    await using queue = await testQueue(kind)
    const { seen, handler, release } = heldHandler()
    const [active, waiting, unknown] = [newJob(), newJob(), newJob()]

    await queue.engine.add([active])
    await queue.engine.consume("capture.a", { concurrency: 1, handler })
    await expect.poll(() => seen).toEqual([active.id])
    await queue.engine.add([waiting])

    const ask = () =>
      queue.engine.unfinished([active, waiting, unknown, { ...active, wake: 1, queue: "capture.b" }])
    expect(await ask()).toEqual(new Set([active.id, waiting.id]))
    release()
    await expect.poll(ask).toEqual(new Set())
  })

  test("takes everything again after it was wiped, also into a consumer that ran meanwhile", async () => {
    await using queue = await testQueue(kind)
    const { seen, handler } = notingHandler()
    const lost = { ...newJob(), queue: "capture.nobody" }
    const before = newJob()
    await queue.engine.consume("capture.a", { concurrency: 2, handler })
    await queue.engine.add([lost, before])
    await expect.poll(() => seen).toEqual([before.id])

    await queue.wipe()
    const repaired = await queue.engine.repair()

    expect(repaired).toBe(kind === "postgres")
    expect(await queue.engine.repair()).toBe(false)
    expect(await queue.engine.unfinished([lost])).toEqual(new Set())
    const again = { ...before, wake: 1 }
    await queue.engine.add([again])
    await expect.poll(() => seen).toEqual([before.id, before.id])
  })

  test("a worker that finds the engine wiped under it goes on once it is repaired", async () => {
    await using queue = await testQueue(kind)
    const { seen, handler, release } = heldHandler()
    const job = newJob()
    await queue.engine.consume("capture.a", { concurrency: 1, handler })
    await queue.engine.add([job])
    await expect.poll(() => seen).toEqual([job.id])

    await queue.wipe()
    release()
    await expect.poll(() => queue.errors.length).toBeGreaterThan(0)
    await queue.engine.repair()
    await queue.engine.add([{ ...job, wake: 1 }])

    await expect.poll(() => seen).toEqual([job.id, job.id])
    // Without a pause between two looks at tables that are gone there are thousands.
    expect(queue.errors.length).toBeLessThan(20)
  })

  test("a handler's failure ends its job and is reported", async () => {
    await using queue = await testQueue(kind)
    const [failing, next] = [newJob(), newJob()]
    const seen: string[] = []

    await queue.engine.consume("capture.a", {
      concurrency: 1,
      handler: (id) => {
        seen.push(id)
        return id === failing.id ? Promise.reject(new Error("out of luck")) : Promise.resolve()
      },
    })
    await queue.engine.add([failing, next])

    await expect.poll(() => seen).toEqual([failing.id, next.id])
    await expect.poll(() => queue.engine.unfinished([failing, next])).toEqual(new Set())
    expect(queue.errors.map((error) => error.message)).toEqual(["out of luck"])
  })

  test("runs as many handlers at a time as it was told to", async () => {
    await using queue = await testQueue(kind)
    const { seen, handler, release } = heldHandler()
    const jobs = Array.from({ length: 5 }, () => newJob())

    await queue.engine.add(jobs)
    await queue.engine.consume("capture.a", { concurrency: 3, handler })
    await expect.poll(() => seen.length).toBe(3)
    const sentinel = { ...newJob(), queue: "capture.b" }
    const other = notingHandler()
    await queue.engine.consume("capture.b", { concurrency: 1, handler: other.handler })
    await queue.engine.add([sentinel])
    await expect.poll(() => other.seen).toEqual([sentinel.id])

    expect(seen.length).toBe(3)
    release()
    await expect.poll(() => seen.length).toBe(5)
  })

  test("closing aborts the handler that runs, waits for it, and takes nothing more", async () => {
    await using queue = await testQueue(kind)
    const [first, second] = [newJob(), newJob()]
    const seen: string[] = []
    const ended = vi.fn<() => void>()
    const consumer = await queue.engine.consume("capture.a", {
      concurrency: 1,
      handler: async (id, signal) => {
        seen.push(id)
        if (!signal.aborted) await once(signal, "abort")
        ended()
      },
    })
    await queue.engine.add([first, second])
    await expect.poll(() => seen).toEqual([first.id])

    await consumer.close()

    expect(ended).toHaveBeenCalledOnce()
    expect(seen).toEqual([first.id])
    expect(await queue.engine.unfinished([first, second])).toEqual(new Set([second.id]))
  })

  test("a job whose worker was killed goes to another worker", async () => {
    await using queue = await testQueue(kind)
    const job = newJob()
    const child = fork(new URL("./held-worker.ts", import.meta.url), {
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    })
    child.send({ settings: queue.settings, queue: job.queue, lockMs })
    await once(child, "message")
    await queue.engine.add([job])
    const [taken] = (await once(child, "message")) as [string]

    child.kill("SIGKILL")
    await once(child, "exit")

    expect(taken).toBe(job.id)
    expect(await queue.engine.unfinished([job])).toEqual(new Set([job.id]))
    const { seen, handler } = notingHandler()
    await queue.engine.consume(job.queue, { concurrency: 1, handler, lockMs })
    await expect.poll(() => seen).toEqual([job.id])
  })
})

/** A lock of a second, so that the test need not wait for the usual 30. */
const lockMs = 1_000
