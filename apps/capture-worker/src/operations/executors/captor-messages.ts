import { errorCodes, type ErrorCode } from "@stillframe/domain/errors"
import { isManifest, type Manifest } from "@stillframe/storage/manifest-format"
import { z } from "zod"
import { wordsMax, type FromCaptor, type Order, type Results } from "../../executor/orders.ts"

const textMax = 64 * 1024

// Unknown members are left out, and long lists not looked into: an error about each of them would hold the
// event loop.
const listOf = <T extends z.ZodType>(schema: T, lengthMax: number) =>
  z.custom<unknown[]>((value) => Array.isArray(value) && value.length <= lengthMax).pipe(z.array(schema))
const count = z.int().min(0)
const text = z.string().max(textMax)
const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(errorCodes, code)

const message: z.ZodType<FromCaptor> = z.union([
  z.object({ progress: z.number().min(0).max(1) }),
  z.object({ importing: z.object({ bytes: count, totalBytes: count }) }),
  z.object({
    error: z.object({
      code: z.string().refine(isErrorCode),
      message: z.string().transform(cut),
      said: z.string().transform(cut).exactOptional(),
    }),
  }),
  z.object({ free: z.literal(true) }),
  // Looked at once its order's kind is known.
  z.object({ result: z.custom<Results[keyof Results]>((value) => value !== undefined) }),
])

const processIdentity = z.object({ pid: z.int().min(1), startTime: count, bootId: text })

const guestConfig = z.object({
  memoryMib: count,
  vcpus: count,
  machine: text.optional(),
  accel: z.enum(["tcg", "kvm"]).optional(),
  cpu: text.optional(),
  kernel: text.optional(),
  initrd: text.optional(),
  cmdline: text.optional(),
  disks: listOf(
    z.object({
      path: text,
      format: z.enum(["raw", "qcow2"]),
      readonly: z.boolean(),
      sha256: text.optional(),
    }),
    16,
  ),
})

const attachedVm = z.object({
  controlSocket: text,
  process: processIdentity,
  user: z.object({ uid: count, gid: count }),
  hypervisorVersion: text,
  memoryMib: count,
  vcpus: count,
  diskBytesMax: count,
  standstill: z.object({ status: text, reason: text, endsWithWrites: z.boolean() }).optional(),
  blocked: listOf(text, 1_000),
  launch: z.discriminatedUnion("restorable", [
    z.object({
      restorable: z.literal(true),
      config: guestConfig,
      devices: listOf(text, 10_000),
    }),
    z.object({ restorable: z.literal(false), option: text }),
  ]),
})

const manifest = z.custom<Manifest>(isManifest)

const results: Readonly<Record<Order["kind"], z.ZodType>> = {
  capture: manifest,
  standby: manifest,
  attach: attachedVm,
  release: z.null(),
  launch: z.object({ pid: z.int().min(1), launch: guestConfig }),
  start: processIdentity,
  restore: processIdentity.nullable(),
  stop: z.null(),
  merge: z.null(),
  end: z.null(),
}

/** Throws for what no captor sends. The words of an error are cut. */
export function readMessage(line: string): FromCaptor {
  const value: unknown = JSON.parse(line)
  if (typeof value !== "object" || value === null || Object.keys(value).length !== 1)
    throw new TypeError("a message has one member")
  return message.parse(value)
}

/** The result of an order of this kind. Throws for what is none. */
export function readResult<Kind extends Order["kind"]>(kind: Kind, result: unknown): Results[Kind] {
  // Each schema is that of its kind's result, which the compiler cannot see through the table.
  return results[kind].parse(result) as Results[Kind]
}

function cut(words: string): string {
  return words.slice(0, wordsMax)
}
