import { runProgram } from "./run-program.ts"

/** Whether a program can be executed as another user at all: its path may lie where only root can walk. */
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

/** Whether another user may read and write a file or device. */
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

/** Whether another user may walk into a directory, from the root on. */
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
