import { expect, test } from "vitest"
import { timeouts } from "./connections.ts"

test("a request has a minute to arrive whole, and more only where connections are kept for longer", () => {
  expect(timeouts({})).toMatchObject({ headersTimeout: 60_000, requestTimeout: 60_000 })
  expect(timeouts({ keepAliveMs: 75_000 })).toEqual({
    keepAliveTimeout: 75_000,
    headersTimeout: 80_000,
    requestTimeout: 80_000,
    connectionsCheckingInterval: 5_000,
  })
})
