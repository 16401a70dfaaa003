import { link, lstat, rm, stat, type FileHandle } from "node:fs/promises"
import { dirname, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { cannotLink } from "@stillframe/domain/hard-links"
import { openRegular } from "@stillframe/storage/open-regular"
import { runProgram } from "../process/run-program.ts"
import { descriptorPath } from "./host-file.ts"
import { noFileOfItsOwn } from "./own-file.ts"
import { sealCopy } from "./seal-copy.ts"

const writableByOthers = 0o022

/**
 * Brings immutable files (frozen layers, base links, kernel) into a payload's or a fork's directory under the
 * same names: hard links, or copies where the file system is another. Names that exist already are taken as
 * done.
 */
export async function linkFiles(
  names: readonly string[],
  from: string,
  to: string,
  signal: AbortSignal,
): Promise<void> {
  for (const name of names) await linkFile(join(from, name), join(to, name), signal)
}

/**
 * Does the same with one file, under any name. A file in a VM's directory that the VM's user could write
 * becomes a copy of ours. Throws `hypervisor_failed` for a name that leads elsewhere.
 */
export async function linkFile(from: string, to: string, signal: AbortSignal): Promise<void> {
  await linkOrCopy(from, to, signal)
  if (!(await isOthers(to, from))) return
  await rm(to)
  await copyOwn(from, to, signal)
  await sealCopy(to)
}

/** Does so too, but a file that the VM's user may write is linked all the same. */
export async function linkOrCopy(from: string, to: string, signal: AbortSignal): Promise<void> {
  if (!(await linkOrNot(from, to))) await copyOwn(from, to, signal)
  // Looked at here, where a VM's process can't put another one in its place any more.
  if ((await lstat(to)).isFile()) return
  await rm(to, { force: true })
  throw noFileOfItsOwn(from)
}

/**
 * True for a file that came out of another user's directory and that others than we may write, or make
 * writable again.
 */
export async function isOthers(path: string, from: string): Promise<boolean> {
  const us = process.geteuid?.()
  if ((await stat(dirname(from))).uid === us) return false
  const { uid, mode } = await lstat(path)
  return uid !== us || (mode & writableByOthers) !== 0
}

async function copyOwn(from: string, to: string, signal: AbortSignal): Promise<void> {
  // By its descriptor: `cp` would wait for the other end of a pipe, and follow a link.
  await using opened = await openOwn(from)
  // A caller's disk that an earlier version linked is known by its time too.
  const options = ["--reflink=auto", "--sparse=always", "--preserve=timestamps"]
  await runProgram("cp", [...options, "--", descriptorPath(opened, from), to], { signal })
}

/**
 * Opens a file of a VM's directory that may have further names. Throws `hypervisor_failed` for what is no
 * file.
 */
export async function openOwn(path: string): Promise<FileHandle> {
  return await openRegular(path).catch((error: unknown) => {
    throw error instanceof StillframeError ? noFileOfItsOwn(path) : error
  })
}

/** False where the file system cannot link. */
export async function linkOrNot(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return true
    if (cannotLink(error)) return false
    throw error
  }
}
