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

test.each([
  [
    "WRONGPASS invalid username-password pair or user is disabled.",
    /refuses the user or the password.*REDIS_URL/,
  ],
  ["NOAUTH Authentication required.", /refuses the user or the password/],
  ["READONLY You can't write against a read only replica.", /replica.*primary/],
  ["OOM command not allowed when used memory > 'maxmemory'.", /out of memory.*maxmemory/],
  ["MISCONF Redis is configured to save RDB snapshots", /cannot save to its disk/],
  ["MOVED 3999 127.0.0.1:6381", /Redis Cluster/],
  ["connect ECONNREFUSED 127.0.0.1:1", /cannot be reached.*REDIS_URL/],
  ["Reached the max retries per request limit (which is 1).", /^Redis cannot be reached\. Check/],
])("the error %s is told in our words", (message, words) => {
  expect(inRedisWords(new Error(message)).message).toMatch(words)
})

test("an error that is not of Redis stays as it is", () => {
  const error = new Error("a handler failed")
  expect(inRedisWords(error)).toBe(error)
})
