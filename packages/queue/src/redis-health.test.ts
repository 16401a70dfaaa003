import { expect, test } from "vitest"
import { redisProblems } from "./redis-health.ts"
import { inRedisWords } from "./redis-words.ts"

const well = ["redis_version:7.2.4", "role:master", "cluster_enabled:0", "maxmemory:0", "used_memory:1000"]

function told(...lines: string[]): string[] {
  const info = ["# Server", ...well, "maxmemory_policy:noeviction", ...lines].join("\r\n")
  return redisProblems(info).map(({ message }) => message)
}

test("a Redis that suits the queue has no problem", () => {
  expect(told()).toEqual([])
  expect(redisProblems("")).toEqual([])
})

test.each([
  ["maxmemory_policy:allkeys-lru", /maxmemory-policy is allkeys-lru\. Set it to noeviction/],
  ["redis_version:4.0.14", /Redis 4\.0\.14 is too old/],
  ["cluster_enabled:1", /Redis Cluster.*Set it to a single Redis/],
  ["role:slave", /replica.*Set it to the primary/],
])("with %s its problem says what to do", (line, words) => {
  const problems = told(line)
  expect(problems).toHaveLength(1)
  expect(problems[0]).toMatch(words)
})

test("a full Redis is a problem before it refuses a job", () => {
  expect(told("maxmemory:1000", "used_memory:1001")[0]).toMatch(/it uses 1001 of 1000 bytes.*maxmemory/)
})

const url = "redis://user:hidden@cache.example:6380/0"

test.each([
  [
    "WRONGPASS invalid username-password pair or user is disabled.",
    "cannot reach Redis at cache.example:6380: it refuses the user or the password. Correct REDIS_URL.",
  ],
  [
    "NOAUTH Authentication required.",
    "cannot reach Redis at cache.example:6380: it asks for a password. Give one in REDIS_URL.",
  ],
  ["READONLY You can't write against a read only replica.", /replica.*primary/],
  ["OOM command not allowed when used memory > 'maxmemory'.", /out of memory.*maxmemory/],
  ["MISCONF Redis is configured to save RDB snapshots", /cannot save to its disk/],
  ["MOVED 3999 127.0.0.1:6381", /Redis Cluster/],
  [
    "connect ECONNREFUSED 127.0.0.1:1",
    "cannot reach Redis at cache.example:6380: nothing listens there. Start it, or correct REDIS_URL.",
  ],
  [
    "getaddrinfo ENOTFOUND cache.example",
    /no address is known for that name\. Correct the host in REDIS_URL/,
  ],
  ["ERR max number of clients reached", /no connection to spare.*maxclients/],
  ["Reached the max retries per request limit (which is 1).", /does not answer/],
])("the error %s is told in our words, with the place and without the password", (said, words) => {
  const told = inRedisWords(new Error(said), url)

  expect(told).toMatchObject({ code: "unavailable", said })
  expect(told.message).toMatch(words)
  expect(told.message).not.toMatch(/hidden|user:/)
})

test("an error that is not of Redis stays as it is", () => {
  const error = new Error("a handler failed")
  expect(inRedisWords(error, url)).toBe(error)
})
