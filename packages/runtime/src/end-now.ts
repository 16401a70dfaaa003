/**
 * Ends this process, by a signal where one of its threads is still in a call to a file system: `process.exit` joins all threads, and
 * one that waits for a server that is gone never ends.
 */
export function endNow(status?: number): never {
  if (process.getActiveResourcesInfo().some((name) => name.startsWith("FSReq"))) killSelf()
  process.exit(status)
}

/** For a process that may hang in a thread of its own. Nothing that it holds is given back. */
export function killSelf(): void {
  process.kill(process.pid, "SIGKILL")
}
