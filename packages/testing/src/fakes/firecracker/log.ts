import { closeSync, openSync, writeSync } from "node:fs"

/** Firecracker's log, a line of one of its threads at a time. */
export type Log = (line: string, thread?: "main" | "fc_api") => void

const newestWithoutLog = 13

export const toStdout: Log = (line, thread) => void process.stdout.write(logged(line, thread))

/** Before 1.14 a log that is missing is an error. */
export function openLog(path: string | undefined, minor: number): Log {
  if (path === undefined) return toStdout
  let fd: number
  try {
    fd = openSync(path, minor > newestWithoutLog ? "a" : "r+")
  } catch {
    exitWith(
      toStdout,
      "Could not initialize logger: Failed to open target file: No such file or directory (os error 2)",
      'LoggerInitialization(LoggerUpdateError(Os { code: 2, kind: NotFound, message: "No such file or directory" }))',
    )
  }
  process.once("exit", () => closeSync(fd))
  return (line, thread) => void writeSync(fd, logged(line, thread))
}

/**
 * Ends the process as Firecracker's `main` does: the error to its log, and as Rust prints it to standard
 * error.
 */
export function exitWith(log: Log, said: string, error: string, code = 1): never {
  log(said)
  process.stderr.write(`Error: ${error}\n`)
  log(`Firecracker exiting with error. exit_code=${code}`)
  process.exit(code)
}

export function exitWell(log: Log): never {
  log("Firecracker exiting successfully. exit_code=0")
  process.exit(0)
}

function logged(line: string, thread = "main"): string {
  const now = new Date().toISOString().replace("Z", "000000")
  return `${now} [anonymous-instance:${thread}] ${line}\n`
}
