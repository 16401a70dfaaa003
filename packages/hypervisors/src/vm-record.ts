import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { GuestConfig } from "./launch-config.ts"
import type { ProcessIdentity } from "./processes.ts"

/** What a VM's directory says of its process, for whoever comes to it without the order that started it. */
export interface VmRecord {
  readonly config: GuestConfig
  readonly process: ProcessIdentity
}

const recordName = "vm.json"

export async function writeVmRecord(dir: string, record: VmRecord): Promise<void> {
  await writeFile(join(dir, recordName), JSON.stringify(record), { mode: 0o600 })
}

/** Throws `hypervisor_gone` where no process was started. */
export async function readVmRecord(dir: string): Promise<VmRecord> {
  const text = await readFile(join(dir, recordName), "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause
    throw new StillframeError("hypervisor_gone", `no VM was started in ${dir}`, { cause })
  })
  return JSON.parse(text) as VmRecord
}
