/**
 * Ends this process, by a signal where one of its threads is at work: `process.exit` joins all threads, and
 * one that is in a call to a file system whose server is gone never ends.
 */
export function endNow(status?: number): never {
  // A call to a file system, and a worker thread that something waits for.
  const atWork = (name: string): boolean => name.startsWith("FSReq") || name === "MessagePort"
  if (process.getActiveResourcesInfo().some(atWork)) killSelf()
  process.exit(status)
}

/** For a process that may hang in a thread of its own. Nothing that it holds is given back. */
export function killSelf(): void {
  process.kill(process.pid, "SIGKILL")
}
