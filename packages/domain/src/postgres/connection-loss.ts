// Node's codes of a connection that fails, and Postgres's of one that it ends or refuses (classes 08 and 57,
// and 53300).
const codes =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|08\w{3}|57P0\d|53300)$/
// pg and ioredis give these no code.
const messages =
  /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Connection is closed|Stream isn't writeable|Reached the max retries per request limit|read ECONNRESET)/

/** True for an error of a server that cannot be reached, false for one of a server that refused a request. */
export function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const { code } = error as NodeJS.ErrnoException
  if (typeof code === "string" && codes.test(code)) return true
  if (messages.test(error.message)) return true
  // A host of several addresses fails with one error for each.
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.every(isConnectionLoss)
  return error.cause !== undefined && isConnectionLoss(error.cause)
}
