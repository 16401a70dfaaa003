import { createHash, randomBytes } from "node:crypto"
import { lstat, readdir, readFile, readlink, rm } from "node:fs/promises"
import { join } from "node:path"

// An output has such a name beside its place while it is made:
// `.stillframe-<system>-<process>-<start>-<random>.partial`.

/** A new name in `dir`, which tells `removeStaleDrafts` who made it. */
export async function draftIn(dir: string): Promise<string> {
  const { pid } = process
  const random = randomBytes(6).toString("hex")
  const system = await thisSystem()
  const maker = system === undefined ? "" : `${system}-${pid}-${await startOf(pid)}-`
  return join(dir, `.stillframe-${maker}${random}.partial`)
}

/**
 * Removes what verbs that were killed left in `dir`: regular files of this user whose process is known to be
 * gone. Those from before a restart of the machine, or from other machines and containers, stay.
 */
export async function removeStaleDrafts(dir: string): Promise<void> {
  const system = await thisSystem()
  if (system === undefined) return
  for (const name of await entriesOf(dir)) {
    const [, of, pid, start] = /^\.stillframe-([0-9a-f]+)-(\d+)-(\d+)-[0-9a-f]+\.partial$/.exec(name) ?? []
    if (of !== system || (await startOf(Number(pid))) === start) continue
    const path = join(dir, name)
    if (await isOwnFile(path)) await rm(path, { force: true })
  }
}

/** A directory may be written and not read. */
async function entriesOf(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "EACCES") return []
    throw error
  })
}

async function isOwnFile(path: string): Promise<boolean> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    // Another verb was faster.
    if (error.code !== "ENOENT") throw error
  })
  return found !== undefined && found.isFile() && found.uid === process.geteuid?.()
}

/**
 * One boot of one machine and one namespace of processes, in which a process has one number. Undefined
 * outside Linux.
 */
async function thisSystem(): Promise<string | undefined> {
  if (process.platform !== "linux") return undefined
  const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8")
  const namespace = await readlink("/proc/self/ns/pid")
  return createHash("sha256").update(`${boot} ${namespace}`).digest("hex").slice(0, 8)
}

/** When a process started, in ticks since the boot (proc(5), field 22 of stat); undefined when it is gone. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ESRCH") throw error
  })
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19]
}
