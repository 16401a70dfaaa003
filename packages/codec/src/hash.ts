import { open } from "node:fs/promises"
import { createControl } from "./control.ts"
import { fileError, regularFileBytes } from "./files.ts"
import { runThreads } from "./threads.ts"

/** The SHA-256 (hexadecimal) and size of a regular file, computed in a thread. An abort throws the signal's reason. */
export async function sha256File(
  path: string,
  { signal }: { signal: AbortSignal },
): Promise<{ sha256: string; bytes: number }> {
  signal.throwIfAborted()
  try {
    await using file = await open(path)
    const bytes = await regularFileBytes(file, path)
    const control = createControl()
    const [sha256 = ""] = await runThreads([{ kind: "hash-file", control, fd: file.fd, bytes }], {
      control,
      signal,
    })
    return { sha256, bytes }
  } catch (thrown) {
    throw fileError(thrown)
  }
}
