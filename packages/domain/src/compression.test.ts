import { expect, test } from "vitest"
import { compressionMistake, effectiveCompression } from "./compression.ts"

test.each([
  [{ enabled: true, level: 0 }, "level must be between 1 and 19 for zstd, got 0"],
  [{ enabled: true, algorithm: "lz4", level: 10 }, "level must be between 0 and 9 for lz4, got 10"],
  [{ enabled: false, level: 20 }, "level must be between 1 and 19 for zstd, got 20"],
  [{ enabled: true, algorithm: "lz4", level: 9 }, undefined],
  [{ enabled: true }, undefined],
] as const)("of %j it is said: %s", (config, mistake) => {
  expect(compressionMistake(config)).toBe(mistake)
})

test("the request decides before the instance, and the instance before the server", () => {
  const server = { enabled: true, algorithm: "lz4" } as const

  expect(effectiveCompression({ enabled: true, level: 3 }, { enabled: false }, server)).toEqual({
    enabled: true,
    algorithm: "zstd",
    level: 3,
  })
  expect(effectiveCompression(undefined, null, server)).toEqual({ enabled: true, algorithm: "lz4", level: 0 })
})

test("a config that says no ends the search", () => {
  expect(effectiveCompression({ enabled: false }, { enabled: true }, { enabled: true })).toBeUndefined()
})
