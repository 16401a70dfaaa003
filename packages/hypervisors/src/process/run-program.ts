import { execFile } from "node:child_process"
import { basename } from "node:path"
import { promisify } from "node:util"
import { childEnv } from "@stillframe/domain/child-env"
import { isOutOfDescriptors, StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { logHasWhy } from "../refusal.ts"

const OUTPUT_BYTES_MAX = 4 * 1024 * 1024

/**
 * Runs a helper program to its end and gives its standard output. Throws `hypervisor_failed` with its last
 * line of complaint in `said`.
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  { cwd, runAs, signal }: { cwd?: string; runAs?: { uid: number; gid: number }; signal: AbortSignal },
): Promise<string> {
  try {
    const options = {
      env: childEnv(),
      signal,
      maxBuffer: OUTPUT_BYTES_MAX,
      ...(cwd !== undefined && { cwd }),
      ...runAs,
    }
    return (await promisify(execFile)(program, [...args], options)).stdout
  } catch (error) {
    const { code, stderr } = error as NodeJS.ErrnoException & { stderr?: string }
    if (isOutOfDescriptors(error)) throw toStillframeError(error)
    if (code === "ENOENT") {
      throw new StillframeError(
        "hypervisor_unavailable",
        `${basename(program)} was not found on this host; install it, or correct the setting that names it`,
        { cause: error },
      )
    }
    if (code === "ABORT_ERR")
      throw new StillframeError("cancelled", `${basename(program)} was cancelled`, { cause: error })
    const said = stderr?.trim().split("\n").at(-1) || `it ended with ${code ?? "a signal"}`
    const full = /No space left on device|Disk quota exceeded/.test(said)
    throw full
      ? new StillframeError(
          "insufficient_storage",
          `${basename(program)} found no space for its output; free some space and try again`,
          { cause: error, said },
        )
      : new StillframeError("hypervisor_failed", `${basename(program)} failed; ${logHasWhy}`, {
          cause: error,
          said,
        })
  }
}
