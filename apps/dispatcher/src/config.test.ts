import { expect, test } from "vitest"
import { configFromEnv } from "./config.ts"

const required = { DATABASE_URL: "postgres://db.example/app", SECRETS_KEY: "k".repeat(32) }

test("ranges are a list, and the ports of the stack's own services are known", () => {
  const config = configFromEnv({
    ...required,
    DATABASE_DIRECT_URL: "postgres://db.example:6432/app",
    REDIS_URL: "redis://cache.example",
    PORT: "9000",
    WEBHOOK_ALLOWED_CIDRS: "10.0.0.0/8, fd00::/8",
  })

  expect(config.webhooks).toEqual({
    allowedCidrs: ["10.0.0.0/8", "fd00::/8"],
    stackPorts: [9000, 5432, 6432, 6379],
  })
})

test("events are kept for so many days, 30 unless told otherwise", () => {
  const days = (EVENT_RETENTION?: string) =>
    configFromEnv({ ...required, EVENT_RETENTION }).eventRetentionMs / 86_400_000

  expect([days(), days("1"), days("365")]).toEqual([30, 1, 365])
  expect(() => days("0")).toThrow("EVENT_RETENTION")
})

test("without settings nothing private is allowed", () => {
  expect(configFromEnv(required).webhooks).toEqual({ allowedCidrs: [], stackPorts: [8080, 5432] })
})

test("every mistake is named at once, and no value is shown", () => {
  const env = {
    DATABASE_URL: "mysql://hidden",
    SECRETS_KEY: "hidden",
    WEBHOOK_ALLOWED_CIDRS: "hidden",
    PORT: "0",
  }

  const report = (): string => {
    try {
      configFromEnv(env)
      return "no mistake"
    } catch (error) {
      return (error as Error).message
    }
  }

  for (const name of Object.keys(env)) expect(report()).toContain(name)
  expect(report()).not.toContain("hidden")
})
