import { algorithms } from "@stillframe/domain/compression"
import { idPattern } from "@stillframe/domain/ids"
import { hypervisors, targetStates } from "@stillframe/domain/instance"
import { captureModes, snapshotKinds } from "@stillframe/domain/snapshot"
import { nameLengthMax, namePattern } from "@stillframe/domain/text/names"
import { tagKeyPattern, tagsMax, tagValuePattern } from "@stillframe/domain/text/tags"
import { z } from "zod"
import { tooManyProperties } from "./counts.ts"

const nameRule = "1 to 63 lower-case letters, digits and dashes; the first and the last must not be a dash"

export const nameSchema = z
  .string()
  .min(1)
  .max(nameLengthMax)
  .regex(namePattern, { error: `a name has ${nameRule}` })
  .describe(`The name: ${nameRule}.`)

const tagCharacters = "letters, digits, spaces and _ . : / = + @ -"

export const tagsSchema = z
  .record(
    z.string().regex(tagKeyPattern, { error: `a tag's key has 1 to 128 ${tagCharacters}` }),
    z.string().regex(tagValuePattern, { error: `a tag's value has 0 to 256 ${tagCharacters}` }),
  )
  .refine((tags) => Object.keys(tags).length <= tagsMax, {
    error: tooManyProperties(tagsMax),
  })
  .meta({
    maxProperties: tagsMax,
    description: `Your own key-value pairs, at most ${tagsMax}, of ${tagCharacters}.`,
  })

export const compressionSchema = z
  .object({
    enabled: z.boolean().describe("True if the memory is compressed."),
    algorithm: z.enum(algorithms).optional().describe("The compression algorithm. Defaults to zstd."),
    // The range of the algorithm itself is the handler's to judge, with another code.
    level: z
      .int()
      .min(0)
      .max(19)
      .optional()
      .describe("The compression level: 1 to 19 for zstd (default 1), 0 to 9 for lz4 (default 0)."),
  })
  .describe("The compression of the memory file.")

export const compressSnapshotSchema = compressionSchema
  .extend({ enabled: z.literal(true).optional().describe("Always true.") })
  .meta({
    id: "CompressSnapshotRequest",
    description: "The compression to use. Without members: that of the snapshot, or the server's default.",
  })

export const idSchema = z
  .string()
  .regex(idPattern, { error: "an id has 24 lower-case letters and digits, the first a letter" })

export const createSnapshotSchema = z
  .object({
    kind: z
      .enum(snapshotKinds)
      .describe("`Standby` saves memory and disks of a VM, `Stopped` the disks of one that does not run."),
    name: nameSchema
      .optional()
      .describe(`The name, unique among the snapshots of the instance: ${nameRule}.`),
    tags: tagsSchema.optional(),
    capture: z
      .enum(captureModes)
      .optional()
      .describe(
        "The way in which the memory of a running VM is saved. `paused`, the default, pauses the VM until its memory is saved. `live` pauses it for " +
          "some milliseconds and saves the memory as of that moment. Only for Standby snapshots, where the host's `live_capture` is true, and not of attached VMs.",
      ),
    compression: compressionSchema
      .optional()
      .describe("The compression of the memory file. Defaults to that of the instance, then of the server."),
  })
  .meta({ id: "CreateSnapshotRequest", description: "The snapshot to take." })

const targetStateSchema = z
  .enum(targetStates)
  .optional()
  .describe(
    "The state of the instance afterwards. Defaults to Running, and to Stopped for Stopped snapshots.",
  )

const targetHypervisorSchema = z
  .enum(hypervisors)
  .optional()
  .describe(
    "A hypervisor that the host offers. Only for Stopped snapshots. Defaults to the hypervisor that the snapshot was taken on.",
  )

export const forkSnapshotSchema = z
  .object({
    name: nameSchema.describe(`The name of the new instance: ${nameRule}.`),
    target_state: targetStateSchema,
    target_hypervisor: targetHypervisorSchema,
  })
  .meta({ id: "ForkSnapshotRequest", description: "The instance to make from a snapshot." })

export const restoreSnapshotSchema = z
  .object({ target_state: targetStateSchema, target_hypervisor: targetHypervisorSchema })
  .meta({ id: "RestoreSnapshotRequest", description: "The options of a restore." })

/** A whole number in a query's text. */
export function numberInQuery({ min, max }: { min: number; max: number }): z.ZodType<number, string> {
  return z
    .string()
    .regex(/^\d{1,16}$/, { error: "value must be a whole number" })
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

/** A comma-separated list in a query's text, of at most as many items as there are `values`. */
export function listInQuery<const Values extends readonly string[]>(
  values: Values,
): z.ZodType<Values[number][], string> {
  return z
    .string()
    .transform((text) => text.split(",", values.length + 1))
    .pipe(z.array(z.enum(values)).min(1).max(values.length))
}

/** Rows of one answer at most, and when nothing is asked for: the contract's lists are whole. */
export const listLimit = 10_000

/** A time in a body. */
export const timeSchema = z.iso.datetime({
  offset: true,
  error: "value must be a time such as 2026-01-31T12:00:00Z",
})
