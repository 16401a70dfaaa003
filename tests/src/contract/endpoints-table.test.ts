import { readFile } from "node:fs/promises"
import { expect, test } from "vitest"
import { testApi } from "../api/test-api.ts"

test("the README's table of endpoints has every route of the API, once, and no other", async () => {
  await using api = await testApi()
  const { paths } = (await api.ask("GET", "/spec.json", { claims: null })).body
  const served = Object.entries<object>(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  const readme = await readFile(new URL("../../../README.md", import.meta.url), "utf8")
  const [, table = ""] = /\| call \| effect \|\n([^]*?)\n\n/.exec(readme) ?? []

  const listed = [...table.matchAll(/`([A-Z]+ \/[^`]*)`/g)].map(([, route = ""]) => route)

  expect(listed.toSorted()).toEqual(served.toSorted())
})
