import { StillframeError } from "@stillframe/domain/errors"

/** The beginning of Redis's answer, or of the client's error, to our words. `{why}`: the error's own. */
const words: readonly (readonly [RegExp, string])[] = [
  [
    /^(WRONGPASS|NOAUTH|ERR AUTH|ERR invalid password|ERR wrong number of arguments for 'auth')/,
    "Redis refuses the user or the password ({why}). Correct REDIS_URL.",
  ],
  [/^NOPERM/, "the user of REDIS_URL lacks a right in Redis ({why}). Grant it all commands on all keys."],
  [/\bREADONLY\b/, "REDIS_URL leads to a replica, which takes no writes. Set it to the primary."],
  [
    /\bOOM command not allowed\b/,
    "Redis is out of memory, so the queue takes no jobs. Raise its maxmemory, or remove keys of other programs from it.",
  ],
  [
    /\bMISCONF\b/,
    "Redis takes no writes because it cannot save to its disk ({why}). Mend its disk, or turn its saving off: the queue does not need it.",
  ],
  [
    /^(CROSSSLOT|MOVED|ASK|CLUSTERDOWN)/,
    "REDIS_URL leads to a Redis Cluster, on which the queue does not work. Set it to a single Redis.",
  ],
  [
    /^(LOADING|MASTERDOWN|BUSY)/,
    "Redis does not answer commands at present ({why}). The queue waits for it.",
  ],
  // The client's own words name an option of its library.
  [/^Reached the max retries/, "Redis cannot be reached. Check that it runs and that REDIS_URL names it."],
  [
    /^(connect |read |write |getaddrinfo |Connection is closed|Command timed out)/,
    "Redis cannot be reached ({why}). Check that it runs and that REDIS_URL names it.",
  ],
]

/** An error of Redis or its client in words that end in a remedy; others as they are. Never holds a URL. */
export function inRedisWords(error: Error): Error {
  if (error instanceof StillframeError) return error
  const why = error.message || ((error as NodeJS.ErrnoException).code ?? error.name)
  const text = words.find(([pattern]) => pattern.test(why))?.[1]
  if (text === undefined) return error
  return new StillframeError(
    "unavailable",
    text.replace("{why}", () => why),
    { cause: error },
  )
}
