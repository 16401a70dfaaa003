import type { JobsOptions } from "bullmq"
import { z } from "zod"
import type { Job } from "./contract.ts"

/** Ids, never state: the row is the truth, the job only says "look now". */
const payloadSchema = z.strictObject({ operationId: z.string().min(1).max(64) })

/** `<operation id>-<wake>`: BullMQ forbids `:` and plain integers in ids. */
export function jobId({ id, wake }: Job): string {
  return `${id}-${wake}`
}

/** BullMQ gets no retries and no delays: those are columns of the row. */
export function toBullJob(job: Job): { name: string; data: { operationId: string }; opts: JobsOptions } {
  return {
    name: "look",
    data: { operationId: job.id },
    opts: { jobId: jobId(job), attempts: 1, removeOnComplete: true, removeOnFail: true },
  }
}

/** The operation that a job names; throws on any other payload. */
export function operationIdOf(data: unknown): string {
  return payloadSchema.parse(data).operationId
}

export function byQueue(jobs: readonly Job[]): [queue: string, jobs: Job[]][] {
  return [...Map.groupBy(jobs, (job) => job.queue)]
}
