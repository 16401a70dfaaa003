import { existsSync } from "node:fs"
import { StillframeError } from "@stillframe/domain/errors"
import { expect, test } from "vitest"
import { configFromEnv } from "../config.ts"

const database = { DATABASE_URL: "postgres://localhost/test" }

function staging(path?: string): string | undefined {
  return configFromEnv({ ...database, ...(path !== undefined && { CAPTURE_STAGING: path }) }).staging
}

test("no tmpfs is used that was not named", () => {
  expect(staging()).toBeUndefined()
})

test.skipIf(!existsSync("/dev/shm"))("a tmpfs is taken as it is named", () => {
  expect(staging("/dev/shm")).toBe("/dev/shm")
})

test.each([
  ["shm", "must be an absolute path"],
  ["/nowhere/shm", "must be a directory that exists"],
  ["/etc/passwd", "must be a directory that exists"],
  ["/proc", "must lie on a tmpfs"],
])("%s is refused at the start, with what would be right", (path, words) => {
  expect(() => staging(path)).toThrow(StillframeError)
  expect(() => staging(path)).toThrow(`CAPTURE_STAGING: ${words}`)
})
