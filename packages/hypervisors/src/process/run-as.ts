import { runProgram } from "./run-program.ts"

/** True if another user can execute the program: its path may lie below a directory of root's. */
export async function canRunAs(
  binary: string,
  runAs: { uid: number; gid: number },
  signal: AbortSignal,
): Promise<boolean> {
  return runProgram(binary, ["--version"], { signal, runAs }).then(
    () => true,
    () => false,
  )
}

/** True if another user may read and write the file or device. */
export async function canOpenAs(
  path: string,
  runAs: { uid: number; gid: number },
  signal: AbortSignal,
): Promise<boolean> {
  return runProgram("test", ["-r", path, "-a", "-w", path], { signal, runAs }).then(
    () => true,
    () => false,
  )
}

/** True if another user may enter the directory, from the root on. */
export async function canEnterAs(
  path: string,
  runAs: { uid: number; gid: number },
  signal: AbortSignal,
): Promise<boolean> {
  return runProgram("test", ["-x", path], { signal, runAs }).then(
    () => true,
    () => false,
  )
}
