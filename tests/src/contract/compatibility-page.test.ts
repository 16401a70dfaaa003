import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testApi, type TestApi } from "../api/test-api.ts"

const page = join(import.meta.dirname, "../../../docs/compatibility.md")

let api: TestApi
let text: string
let served: readonly string[]
beforeAll(async () => {
  api = await testApi()
  text = await readFile(page, "utf8")
  const { paths } = (await api.ask("GET", "/spec.json", { claims: null })).body
  served = Object.entries<object>(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
})
afterAll(() => api[Symbol.asyncDispose]())

function named(part: string): string[] {
  const routes = part.matchAll(/`((?:GET|POST|PUT|PATCH|DELETE) \/[^`\s?]*)/g)
  return [...routes].map(([, route = ""]) => route)
}

/** The paragraph that lists what is absent. */
function absent(): string {
  const paragraph = text.split("\n\n").find((one) => one.startsWith("**Not here:**"))
  if (paragraph === undefined) throw new Error('the page has no paragraph "Not here"')
  return paragraph
}

test("every route that the page names is served, but for those that it says are not here", () => {
  const routes = named(text.replace(absent(), ""))
  expect(routes.filter((route) => !served.includes(route))).toEqual([])
})

test("no route is served that the page says is not here", async () => {
  expect(named(absent()).length).toBeGreaterThan(0)
  for (const route of named(absent())) {
    const [method = "", path = ""] = route.split(" ")
    const { status } = await api.ask(method, path.replaceAll(/\{\w+\}/g, "x"))
    expect([route, [404, 405].includes(status), served.includes(route)]).toEqual([route, true, false])
  }
})

test("every route that is served is named by the page", () => {
  const routes = named(text)
  expect(served.filter((route) => !routes.includes(route))).toEqual([])
})
