/**
 * Prints a line on standard output. Rejects with the system's error, but not where a pipe's reader has left.
 */
export function printLine(line: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const end = (error?: NodeJS.ErrnoException | null): void =>
    error && error.code !== "EPIPE" ? reject(error) : resolve()
  // Without a listener Node would print a stack trace.
  process.stdout.once("error", end)
  process.stdout.write(`${line}\n`, end)
  return promise
}
