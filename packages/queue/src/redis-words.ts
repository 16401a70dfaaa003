import { StillframeError } from "@stillframe/domain/errors"
import { sentence, serverAt, unreachable, type Server } from "@stillframe/domain/unreachable"

interface Refusal {
  readonly why: string
  readonly remedy: string
}

/** The beginning of Redis's answer to our reason. */
const refusals: readonly (readonly [RegExp, Refusal])[] = [
  [
    /^(WRONGPASS|ERR AUTH|ERR invalid password|ERR wrong number of arguments for 'auth')/,
    { why: "it refuses the user or the password", remedy: "Correct {setting}." },
  ],
  [/^NOAUTH/, { why: "it asks for a password", remedy: "Give one in {setting}." }],
  [
    /^(LOADING|MASTERDOWN|BUSY)/,
    { why: "it does not answer commands at present", remedy: "The queue waits for it." },
  ],
  [
    /^ERR max number of clients reached/,
    { why: "it has no connection to spare", remedy: "Raise its maxclients, or end other clients." },
  ],
]

/** Maps the beginning of an answer of Redis to our message. */
const faults: readonly (readonly [RegExp, string])[] = [
  [/^NOPERM/, "the user of REDIS_URL lacks a right in Redis. Grant it all commands on all keys."],
  [/\bREADONLY\b/, "REDIS_URL leads to a replica, which takes no writes. Set it to the primary."],
  [
    /\bOOM command not allowed\b/,
    "Redis is out of memory, so the queue takes no jobs. Raise its maxmemory, or remove keys of other programs from it.",
  ],
  [
    /\bMISCONF\b/,
    "Redis takes no writes because it cannot save to its disk. Mend its disk, or turn its saving off: the queue does not need it.",
  ],
  [
    /^(CROSSSLOT|MOVED|ASK|CLUSTERDOWN)/,
    "REDIS_URL leads to a Redis Cluster, on which the queue does not work. Set it to a single Redis.",
  ],
]

/**
 * Explains an error of Redis or its client with place, reason and remedy; `said` has the original. Returns
 * other errors unchanged. Never contains a password.
 */
export function inRedisWords(error: Error, url: string | undefined): Error {
  if (error instanceof StillframeError) return error
  const server = serverAt("Redis", { url, setting: "REDIS_URL" })
  const said = error.message || ((error as NodeJS.ErrnoException).code ?? error.name)
  const words = faults.find(([pattern]) => pattern.test(said))?.[1] ?? refused(server, error, said)
  return words === undefined ? error : new StillframeError("unavailable", words, { cause: error, said })
}

function refused(server: Server, error: Error, said: string): string | undefined {
  const refusal = refusals.find(([pattern]) => pattern.test(said))?.[1]
  return refusal === undefined ? unreachable(server, error) : sentence(server, refusal)
}
