import type { Problem } from "@stillframe/domain/problem"

// BullMQ's scripts need it.
const versionMajorMin = 5

/** The problems that Redis's `INFO` shows: each keeps the queue from working as it should. */
export function redisProblems(info: string): Problem[] {
  const fields = new Map(
    info.split(/\r?\n/).map((line) => {
      const at = line.indexOf(":")
      return [line.slice(0, at), line.slice(at + 1)] as const
    }),
  )
  const messages = [
    tooOld(fields.get("redis_version")),
    evicts(fields.get("maxmemory_policy")),
    full(fields.get("used_memory"), fields.get("maxmemory")),
    fields.get("role") === "slave" && fields.get("slave_read_only") !== "0" ? replica : undefined,
    fields.get("cluster_enabled") === "1" ? cluster : undefined,
  ]
  return messages
    .filter((message) => message !== undefined)
    .map((message) => ({ code: "unavailable", message }))
}

const replica = "REDIS_URL leads to a replica, which takes no writes. Set it to the primary."
const cluster =
  "REDIS_URL leads to a Redis Cluster, on which the queue does not work. Set it to a single Redis."

function tooOld(version: string | undefined): string | undefined {
  if (version === undefined || Number.parseInt(version, 10) >= versionMajorMin) return undefined
  return `Redis ${version} is too old for the queue. Install Redis 6.2 or newer.`
}

function evicts(policy: string | undefined): string | undefined {
  if (policy === undefined || policy === "noeviction") return undefined
  return `Redis may remove jobs when its memory is full: its maxmemory-policy is ${policy}. Set it to noeviction.`
}

function full(used: string | undefined, most: string | undefined): string | undefined {
  const maxmemory = Number(most ?? 0)
  if (maxmemory === 0 || Number(used ?? 0) < maxmemory) return undefined
  return `Redis is out of memory: it uses ${used} of ${most} bytes, so the queue may take no jobs. Raise its maxmemory, or remove keys of other programs from it.`
}
