import type { NewInstance } from "@stillframe/db/instances/instances"
import { StillframeError } from "@stillframe/domain/errors"
import { builtinImages, type BuiltinImage } from "@stillframe/domain/images"
import { hypervisors } from "@stillframe/domain/instance"
import { hostNamePattern } from "@stillframe/domain/text/names"
import { z } from "zod"
import { defaultHypervisor } from "../contract-capabilities.ts"
import { nameSchema, tagsSchema } from "../http/input/schemas.ts"
import { snapshotPolicySchema } from "../snapshots/policy.ts"

const memoryMibRange = { min: 16, max: 4 * 1024 * 1024 }
const vcpusMax = 255
const disksMax = 16
const pidMax = 4_194_304
const pathLengthMax = 4_095
const cmdlineLengthMax = 2_047

const imageSchema = z
  .enum(Object.keys(builtinImages) as BuiltinImage[])
  .describe("A guest that comes with Stillframe: `demo` is a small Linux, `heartbeat` a guest of 150 bytes.")
const vcpusSchema = z
  .int()
  .min(1)
  .max(vcpusMax)
  .describe("The number of virtual processors. Defaults to the image's, else to 1.")

// Only the form of a path is checked here, because the file is on the host. A comma, a colon or a backslash
// would have a meaning to QEMU. The description of the API shows the patterns, so control characters are
// ranges, which every language's expressions can read.
const pathSchema = z
  .string()
  .max(pathLengthMax)
  // oxlint-disable-next-line no-control-regex -- they are what is refused
  .regex(/^\/[^,:\\\x00-\x1f\x7f-\x9f]+$/, {
    error: "a path begins with / and has no comma, colon, backslash and control character",
  })

const diskSchema = z.object({
  path: pathSchema.describe(
    "The absolute path of the disk on the host, under `HOST_PATHS`. The file is only read.",
  ),
  format: z
    .enum(["raw", "qcow2"])
    .describe("The format of the file. It is never guessed; a file of another format is refused."),
  readonly: z.boolean().optional().describe("If true, the guest can only read the disk. Defaults to false."),
})

const launchSchema = z
  .object({
    image: imageSchema.optional(),
    kernel: pathSchema.optional().describe("The absolute path of a kernel on the host, under `HOST_PATHS`."),
    initrd: pathSchema.optional().describe("The absolute path of an initial RAM disk on the host."),
    cmdline: z
      .string()
      .max(cmdlineLengthMax)
      // oxlint-disable-next-line no-control-regex -- they are what is refused
      .regex(/^[^\x00-\x1f\x7f-\x9f]*$/, { error: "a kernel's command line has no control characters" })
      .optional()
      .describe("The kernel's command line."),
    memory_mib: z
      .int()
      .min(memoryMibRange.min)
      .max(memoryMibRange.max)
      .optional()
      .describe("The memory in MiB. Defaults to the image's."),
    vcpus: vcpusSchema.optional(),
    disks: z
      .array(diskSchema)
      .max(disksMax)
      .optional()
      .describe(
        "The disks, in the order that the guest sees them. It boots from the first one unless a kernel is given.",
      ),
    machine: z
      .string()
      .regex(/^(q35|pc|microvm|pc-q35-\d{1,2}\.\d{1,2}|pc-i440fx-\d{1,2}\.\d{1,2})$/, {
        error: "a machine is q35, pc, microvm or an exact type such as pc-q35-7.2",
      })
      .optional()
      .describe("The machine type, of QEMU only. Defaults to the newest q35 of the host's QEMU."),
  })
  .describe("The files that the VM boots from: an image, a kernel, or a disk.")

const attachSchema = z
  .object({
    control_socket: pathSchema.describe("The absolute path of the VM's QMP socket on the host."),
    pid: z
      .int()
      .min(1)
      .max(pidMax)
      .optional()
      .describe("The id of the VM's process. If another process listens on the socket, the attach fails."),
    allow_overlay: z
      .boolean()
      .optional()
      .describe(
        "If true, a capture may put an overlay on the VM's disks while it copies them, where their file system cannot share blocks. Defaults to false.",
      ),
  })
  .describe("A QEMU that was started outside of Stillframe. Needs the scope `host:attach` as well.")

export const createInstanceSchema = z
  .object({
    name: nameSchema.describe(
      "The name, unique among all instances: 1 to 63 lower-case letters, digits and dashes.",
    ),
    image: imageSchema.optional(),
    launch: launchSchema.optional(),
    attach: attachSchema.optional(),
    hypervisor: z
      .enum(hypervisors)
      .default(defaultHypervisor)
      .describe("The hypervisor. `GET /capabilities` says which ones hosts offer."),
    host: z
      .string()
      .regex(hostNamePattern, { error: "a host's name has 1 to 63 lower-case letters, digits and dashes" })
      .optional()
      .describe("The host that runs the VM. Defaults to the only one that is up."),
    vcpus: vcpusSchema.optional(),
    size: z
      .string()
      .regex(/^\d{1,9}(\.\d{1,3})? ?([KMGTkmgt][Ii]?[Bb]?|[Bb])$/, {
        error: 'a size is a number with a unit, such as "512MB" or "1.5 GB"',
      })
      .optional()
      .describe("The memory, such as `512MB` or `1.5 GB`. Units are powers of 1024."),
    tags: tagsSchema.optional(),
    // The contract's, of which we have nothing: who asks for one must not get a VM without it.
    volumes: z.array(z.unknown()).optional().describe("Not supported: must be empty."),
    devices: z.array(z.unknown()).optional().describe("Not supported: must be empty."),
    gpu: z.unknown().optional().describe("Not supported: must be absent."),
    snapshot_policy: snapshotPolicySchema.optional(),
  })
  .meta({ id: "CreateInstanceRequest", description: "The VM to launch, or to attach to." })

/** The part of a new instance that the host's worker reads. */
type Origin = Pick<NewInstance, "launch" | "attached" | "image" | "vcpus" | "memoryMib">

/** The contract requires `image`; an instance with files of its own shows this. */
const ownFiles = "custom"

/**
 * Settles what is to be launched from both ways of saying it, or attached to. Throws `invalid_request` or
 * `not_supported`.
 */
export function originOf(body: z.output<typeof createInstanceSchema>): Origin {
  if ([...(body.volumes ?? []), ...(body.devices ?? [])].length > 0 || (body.gpu ?? null) !== null)
    throw new StillframeError(
      "not_supported",
      'volumes, devices of the host and GPUs are not supported; omit them, and name disks in "launch.disks"',
    )
  if (body.attach !== undefined) return attachedAsItRuns(body, body.attach)
  const image = body.launch?.image ?? body.image
  const launch = { ...body.launch, ...(image !== undefined && { image }) }
  if (image === undefined) checkOwnFiles(launch)
  const defaults = image === undefined ? undefined : builtinImages[image]
  const size = body.size === undefined ? undefined : toMib(body.size)
  const memoryMib = launch.memory_mib ?? size ?? defaults?.memory_mib
  if (memoryMib === undefined) throw invalid('give the guest\'s memory as "launch.memory_mib" or "size"')
  const vcpus = launch.vcpus ?? body.vcpus ?? defaults?.vcpus ?? 1
  return { launch: { ...launch, memory_mib: memoryMib, vcpus }, image: image ?? ownFiles, memoryMib, vcpus }
}

/** The host's worker finds out the rest. */
function attachedAsItRuns(
  body: z.output<typeof createInstanceSchema>,
  attached: z.output<typeof attachSchema>,
): Origin {
  for (const member of ["launch", "image", "vcpus", "size"] as const)
    if (body[member] !== undefined)
      throw invalid(`give either "attach" or "${member}": an attached VM is taken as it runs`)
  return { launch: {}, attached, image: ownFiles, vcpus: 0, memoryMib: 0 }
}

function checkOwnFiles({ kernel, initrd, cmdline, disks = [] }: z.output<typeof launchSchema>): void {
  if (kernel === undefined && disks.length === 0)
    throw invalid(
      `give an "image" (${Object.keys(builtinImages).join(", ")}), or a kernel or a disk in "launch"`,
    )
  if (kernel === undefined && (initrd !== undefined || cmdline !== undefined))
    throw invalid('"launch.initrd" and "launch.cmdline" need a "launch.kernel"')
}

function toMib(size: string): number {
  const bytes =
    Number.parseFloat(size) * 1024 ** " KMGT".indexOf(/[KMGT]/i.exec(size)?.[0].toUpperCase() ?? " ")
  const mib = Math.ceil(bytes / 1024 ** 2)
  const { min, max } = memoryMibRange
  if (mib >= min && mib <= max) return mib
  throw invalid(`size "${size}" is not between ${min} MB and ${max / 1024 ** 2} TB`)
}

function invalid(message: string): StillframeError {
  return new StillframeError("invalid_request", message)
}
