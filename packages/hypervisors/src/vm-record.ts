import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { checkSize, type GuestConfig } from "./launch-config.ts"
import { openOwnFile, writeOwnFile } from "./own-file.ts"
import type { ProcessIdentity } from "./processes.ts"

/** What a VM's directory says of its process, for whoever comes to it without the order that started it. */
export interface VmRecord {
  readonly config: GuestConfig
  readonly process: ProcessIdentity
}

const recordName = "vm.json"

export async function writeVmRecord(dir: string, record: VmRecord): Promise<void> {
  await writeOwnFile(join(dir, recordName), JSON.stringify(record))
}

/** Throws `hypervisor_gone` where no process was started, and `invalid_request` for sizes that no VM has. */
export async function readVmRecord(dir: string): Promise<VmRecord> {
  await using record = await openOwnFile(join(dir, recordName)).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause
    throw new StillframeError("hypervisor_gone", `no VM was started in ${dir}`, { cause })
  })
  const read = JSON.parse(await readFile(record.path, "utf8")) as VmRecord
  // A process that was broken out of may have written it anew, and deadlines are counted from its sizes.
  checkSize(read.config)
  return read
}
