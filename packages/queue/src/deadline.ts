import { StillframeError } from "@stillframe/domain/errors"

/**
 * Settles with `work`, or rejects with `unavailable` after `ms`, which counts as a lost connection; the work
 * itself is not ended by that.
 */
export async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    reject(
      new StillframeError(
        "unavailable",
        `${what} took more than ${ms / 1_000} s; check that the queue is up`,
        { cause: Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" }) },
      ),
    )
  }, ms)
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
