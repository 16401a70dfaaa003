import { fstatSync, readFileSync, statSync } from "node:fs"
import { StillframeError } from "@stillframe/domain/errors"

/**
 * Throws where standard input (0) or output (1) was closed by whoever started this process. Node has then
 * opened /dev/null in its place, for reading and writing, as some callers do on purpose; a shell's
 * redirection opens it for one of them.
 */
export function assertOpen(fd: 0 | 1): void {
  if (process.platform !== "linux" || !isNull(fd) || !isForBoth(fd)) return
  const name = fd === 0 ? "standard input" : "standard output"
  throw new StillframeError("invalid_request", `${name} is closed; name a file, or redirect it`)
}

function isNull(fd: number): boolean {
  return fstatSync(fd).isCharacterDevice() && fstatSync(fd).rdev === statSync("/dev/null").rdev
}

const accessMode = 3
const readAndWrite = 2

/** By proc(5): the flags of an open file, octal. */
function isForBoth(fd: number): boolean {
  const [, flags = "0"] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")) ?? []
  return (Number.parseInt(flags, 8) & accessMode) === readAndWrite
}
