import { readFile } from "node:fs/promises"
import { fileExists } from "../../files/file-exists.ts"
import { runProgram } from "../../process/run-program.ts"

const device = "/dev/userfaultfd"
const switchFile = "/proc/sys/vm/unprivileged_userfaultfd"

/**
 * Why the user that QEMU runs as may not guard a guest's memory while it is saved, with what a person can do;
 * undefined where nothing is known that speaks against it. Root is never asked: what it may do is seen by
 * trying.
 */
export async function userfaultfdObstacle(runAs?: { uid: number; gid: number }): Promise<string | undefined> {
  const uid = runAs?.uid ?? process.getuid?.() ?? 0
  const gid = runAs?.gid ?? process.getgid?.() ?? 0
  if (uid === 0 || (await canOpenDevice(runAs)) || (await isOpenToAll())) return undefined
  const remedy = (await fileExists(device))
    ? `run "chgrp ${gid} ${device} && chmod 660 ${device}" as root, put the line "z ${device} 0660 root ${gid}" into /etc/tmpfiles.d/stillframe.conf for the next boots,`
    : `there is none here: take a kernel of 6.1 or later, or set vm.unprivileged_userfaultfd=1 by sysctl,`
  const user = runAs === undefined ? `QEMU's user ${uid}` : `QEMU's group ${gid}`
  return `${user} may not open ${device}: ${remedy} and start the capture-worker again`
}

/** Asked of the kernel: besides owner and mode an access list may say so. */
function canOpenDevice(runAs: { uid: number; gid: number } | undefined): Promise<boolean> {
  const { signal } = new AbortController()
  return runProgram("/bin/sh", ["-c", `exec 3<>${device}`], { signal, ...(runAs && { runAs }) }).then(
    () => true,
    () => false,
  )
}

async function isOpenToAll(): Promise<boolean> {
  return (await readFile(switchFile, "utf8").catch(() => "")).trim() === "1"
}
