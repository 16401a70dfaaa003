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
