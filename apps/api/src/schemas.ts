import { algorithms } from "@stillframe/domain/compression"
import { idPattern } from "@stillframe/domain/ids"
import { hypervisors, targetStates } from "@stillframe/domain/instance"
import { nameLengthMax, namePattern } from "@stillframe/domain/names"
import { captureModes, snapshotKinds } from "@stillframe/domain/snapshot"
import { tagKeyPattern, tagsMax, tagValuePattern } from "@stillframe/domain/tags"
import { z } from "zod"

export const nameSchema = z.string().min(1).max(nameLengthMax).regex(namePattern)

export const tagsSchema = z
  .record(z.string().regex(tagKeyPattern), z.string().regex(tagValuePattern))
  .refine((tags) => Object.keys(tags).length <= tagsMax, {
    error: `there must be at most ${tagsMax} properties`,
  })
  .meta({ maxProperties: tagsMax })

export const compressionSchema = z.object({
  enabled: z.boolean(),
  algorithm: z.enum(algorithms).optional(),
  // The range of the algorithm itself is the handler's to judge, with another code.
  level: z.int().min(0).max(19).optional(),
})

export const compressSnapshotSchema = compressionSchema
  .extend({ enabled: z.literal(true).optional() })
  .meta({ id: "CompressSnapshotRequest" })

export const idSchema = z.string().regex(idPattern)

export const createSnapshotSchema = z
  .object({
    kind: z.enum(snapshotKinds),
    name: nameSchema.optional(),
    tags: tagsSchema.optional(),
    capture: z
      .enum(captureModes)
      .optional()
      .meta({
        description:
          "`paused`, the default: a running VM stands still until its memory is saved. `live`: it goes on after a moment, and its " +
          "memory is saved as of that moment; for Standby snapshots where the host's `live_capture` is true, never of an attached VM.",
      }),
    compression: compressionSchema.optional(),
  })
  .meta({ id: "CreateSnapshotRequest" })

const targetHypervisorSchema = z.enum(hypervisors).optional().meta({
  description: "one that the snapshot's host offers; of Stopped snapshots only. Else what it was taken on",
})

export const forkSnapshotSchema = z
  .object({
    name: nameSchema,
    target_state: z.enum(targetStates).optional(),
    target_hypervisor: targetHypervisorSchema,
  })
  .meta({ id: "ForkSnapshotRequest" })

export const restoreSnapshotSchema = z
  .object({
    target_state: z.enum(targetStates).optional(),
    target_hypervisor: targetHypervisorSchema,
  })
  .meta({ id: "RestoreSnapshotRequest" })

/** A whole number in a query's text. */
export function numberInQuery({ min, max }: { min: number; max: number }): z.ZodType<number, string> {
  return z
    .string()
    .regex(/^\d{1,16}$/)
    .transform(Number)
    .pipe(z.int().min(min).max(max))
}

/** A truth value in a query's text. */
export function booleanInQuery(): z.ZodType<boolean, string> {
  return z
    .enum(["true", "false"])
    .transform((text) => text === "true")
    .pipe(z.boolean())
}

/** A comma-separated list of `values` in a query's text. */
export function listInQuery<const Values extends readonly string[]>(
  values: Values,
): z.ZodType<Values[number][], string> {
  return z
    .string()
    .transform((text) => text.split(","))
    .pipe(z.array(z.enum(values)).min(1))
}

/** Rows of one answer at most, and when nothing is asked for: the contract's lists are whole. */
export const listLimit = 10_000
