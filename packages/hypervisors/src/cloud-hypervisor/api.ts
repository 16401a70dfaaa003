import { askVmm, membersOf, untrusted } from "../file-vmm/http.ts"
import { vmFiles } from "./files.ts"
import { refusal } from "./refusal.ts"

export interface VmInfo {
  readonly state: string
  readonly config: { readonly disks?: readonly { readonly path?: string }[] | null }
}

/**
 * Has the VMM carry out one request, such as `vm.boot`. An answer whose body holds `alreadySo` is as good as
 * a success. Throws as `askVmm` does, and what `refusal` makes of a refusal.
 */
export async function order(
  dir: string,
  request: string,
  { deadlineMs, body, alreadySo }: { deadlineMs: number; body?: object; alreadySo?: string },
): Promise<void> {
  const answer = await askVmm({
    dir,
    socket: vmFiles.socket,
    method: "PUT",
    path: `/api/v1/${request}`,
    ...(body !== undefined && { body }),
    deadlineMs,
  })
  if (answer.status < 300) return
  if (alreadySo === undefined || !answer.body.includes(alreadySo)) throw refusal(request, answer)
}

/** The VM as it is now, or undefined where none has been created yet. */
export async function readVm(dir: string, deadlineMs: number): Promise<VmInfo | undefined> {
  const answer = await read(dir, "vm.info", deadlineMs)
  if (answer.status < 300) {
    const { state, config } = membersOf<VmInfo>(answer)
    if (typeof state !== "string" || typeof config !== "object") throw untrusted("no state of its VM")
    return { state, config }
  }
  if (answer.body.includes("VM is not created")) return undefined
  throw refusal("vm.info", answer)
}

/** The exact version of the process that listens, such as `53.0.0`. */
export async function readVersion(dir: string, deadlineMs: number): Promise<string> {
  const answer = await read(dir, "vmm.ping", deadlineMs)
  if (answer.status >= 300) throw refusal("vmm.ping", answer)
  const { version } = membersOf<{ version: string }>(answer)
  if (typeof version !== "string") throw untrusted("no version")
  return version.replace(/^v/, "")
}

async function read(dir: string, request: string, deadlineMs: number) {
  return await askVmm({
    dir,
    socket: vmFiles.socket,
    method: "GET",
    path: `/api/v1/${request}`,
    deadlineMs,
  })
}
