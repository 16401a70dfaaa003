import { compressionMistake } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import type { SnapshotPolicy } from "@stillframe/domain/instance"
import { formatDuration, parseDuration } from "@stillframe/domain/text/duration"
import { z } from "zod"
import { compressionSchema } from "../http/input/schemas.ts"

export const snapshotPolicySchema = z
  .object({
    compression: compressionSchema.optional().describe("The compression of snapshots that ask for none."),
    standby_compression_delay: z
      .string()
      .optional()
      .meta({ examples: ["30s"], description: "A duration that is checked and shown, and has no effect." }),
  })
  .describe("The defaults for snapshots of the instance.")

/**
 * An instance's policy as it is kept and shown. Throws `invalid_snapshot_compression` or `invalid_request`.
 * The delay is of an image that is not compressed here; a mistake in it is one all the same.
 */
export function snapshotPolicyOf({
  compression,
  standby_compression_delay: delay,
}: z.output<typeof snapshotPolicySchema>): SnapshotPolicy {
  const mistake = compression && compressionMistake(compression)
  if (mistake !== undefined) throw new StillframeError("invalid_snapshot_compression", mistake)
  if (delay === undefined) return { compression }
  const ms = parseDuration(delay)
  if (ms !== undefined) return { compression, standby_compression_delay: formatDuration(ms) }
  throw new StillframeError(
    "invalid_request",
    'snapshot_policy.standby_compression_delay must be a duration of at least 0, such as "30s" or "5m"',
  )
}
