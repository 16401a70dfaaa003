import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { isRecord, record, text } from "@stillframe/storage/json-check"
import { readOwnJson, writeOwnFile } from "../files/own-file.ts"
import { checkSize, type GuestConfig } from "../launch-config.ts"
import type { ProcessIdentity } from "./processes.ts"

/** The record of a VM's process in its directory, for readers without the order that started it. */
export interface VmRecord {
  readonly config: GuestConfig
  readonly process: ProcessIdentity
}

const recordName = "vm.json"

export async function writeVmRecord(dir: string, record: VmRecord): Promise<void> {
  await writeOwnFile(join(dir, recordName), JSON.stringify(record))
}

/**
 * Throws `hypervisor_gone` where no process was started, `corrupted` for what is no record, and
 * `invalid_request` for sizes that no VM has.
 */
export async function readVmRecord(dir: string): Promise<VmRecord> {
  const path = join(dir, recordName)
  const { value: read } = await readOwnJson(path, isVmRecord).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause
    throw new StillframeError("hypervisor_gone", "no VM was started in this directory; start the instance", {
      cause,
      said: dir,
    })
  })
  // A process that was broken out of may have written it anew, and deadlines are counted from its sizes.
  checkSize(read.config)
  return read
}

const vmRecordCheck = record({
  config: isRecord,
  process: record({ pid: Number.isSafeInteger, startTime: Number.isFinite, bootId: text }),
})

function isVmRecord(value: unknown): value is VmRecord {
  return vmRecordCheck(value)
}
