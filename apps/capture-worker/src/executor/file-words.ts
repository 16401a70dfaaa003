import { lstatSync } from "node:fs"
import { basename, dirname } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { missingOwnFile, noFileOfItsOwn } from "@stillframe/hypervisors/files/own-file"
import { generationDir } from "@stillframe/storage/layout"
import { missingFile, strangeFile } from "@stillframe/storage/manifest"
import type { Order } from "./orders.ts"

/**
 * An order's failure, in words where the system's error names a file of the VM's directory or of the payload
 * that is missing, or is no file. Any other failure is returned as it is.
 */
export function inFileWords(thrown: unknown, order: Order): unknown {
  const { path, dest } = systemError(thrown)
  for (const at of [path, dest]) {
    if (typeof at !== "string") continue
    const found = lstatSync(at, { throwIfNoEntry: false })
    const isOdd = found !== undefined && !found.isFile()
    // The directory itself may be away, or going.
    const isMissing = found === undefined && at === path && exists(dirname(at))
    const words = isMissing ? missing : isOdd ? odd : undefined
    const place = placeOf(dirname(at), order)
    if (words !== undefined && place !== undefined) return words[place](basename(at), thrown)
  }
  return thrown
}

type Place = "vm" | "payload"
type Words = Readonly<Record<Place, (name: string, cause: unknown) => StillframeError>>

const missing: Words = { vm: missingOwnFile, payload: missingFile }
const odd: Words = { vm: noFileOfItsOwn, payload: strangeFile }

const exists = (dir: string): boolean => lstatSync(dir, { throwIfNoEntry: false }) !== undefined

function placeOf(dir: string, order: Order): Place | undefined {
  if (dir === generationDir(order.dataDir, order.instanceId, order.generation)) return "vm"
  return dir === payloadOf(order) ? "payload" : undefined
}

function payloadOf(order: Order): string | undefined {
  if (order.kind === "restore") return order.payloadDir
  return order.kind === "capture" && order.source.state === "Standby" ? order.source.payloadDir : undefined
}

/** Adapters wrap an error of the system as what nobody foresaw. */
function systemError(thrown: unknown): Partial<NodeJS.ErrnoException & { readonly dest: string }> {
  const isWrapped = thrown instanceof StillframeError && thrown.code === "internal_error"
  return (isWrapped ? thrown.cause : thrown) ?? {}
}
