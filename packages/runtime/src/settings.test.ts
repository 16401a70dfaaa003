import { resolve } from "node:path"
import { expect, test } from "vitest"
import { parseEnv } from "./env.ts"
import { storageSettings } from "./settings.ts"

test.each(["a,b", "a:b", "a\\b", "a\nb"])(
  "a directory called %j is refused for both settings at once",
  (name) => {
    const env = { DATA_DIR: `/srv/${name}`, STORAGE_DIR: `/srv/${name}` }

    expect(() => parseEnv(storageSettings, env)).toThrow(
      /DATA_DIR: must be a path without comma[^]*STORAGE_DIR: must/,
    )
  },
)

test("a relative path starts at the working directory, which may not hold a comma either", () => {
  expect(parseEnv(storageSettings, { DATA_DIR: "data" }).DATA_DIR).toBe(resolve("data"))
})
