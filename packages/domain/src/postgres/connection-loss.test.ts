import { expect, test } from "vitest"
import { isConnectionLoss } from "./connection-loss.ts"

const withCode = (code: string): Error => Object.assign(new Error("x"), { code })

test.each([
  withCode("ECONNREFUSED"),
  withCode("57P01"),
  withCode("57P03"),
  withCode("08006"),
  withCode("53300"),
  new Error("Connection terminated unexpectedly"),
  new Error("Connection terminated due to connection timeout"),
  new Error("Connection is closed."),
  new AggregateError([withCode("ECONNREFUSED"), withCode("ETIMEDOUT")]),
  new Error("asked in vain", { cause: withCode("ECONNRESET") }),
])("%o says that a server cannot be reached", (error) => {
  expect(isConnectionLoss(error)).toBe(true)
})

test.each([
  withCode("53100"),
  withCode("42P01"),
  withCode("ENOSPC"),
  new Error("the connection string is wrong"),
  new AggregateError([]),
  new AggregateError([withCode("ECONNREFUSED"), withCode("42P01")]),
  "ECONNREFUSED",
  undefined,
])("%o says something else", (error) => {
  expect(isConnectionLoss(error)).toBe(false)
})
