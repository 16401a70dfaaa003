import { expect, test } from "vitest"
import { createLogger } from "./logger.ts"

test("of an error only what is known to be harmless is logged, whatever a library hung on it", () => {
  const lines: string[] = []
  const log = createLogger({
    service: "test",
    level: "info",
    destination: { write: (line) => lines.push(line) },
  })
  const cause = Object.assign(new Error("connection refused"), {
    code: "ECONNREFUSED",
    client: { secretKey: "hidden" },
  })
  const error = Object.assign(new Error("no answer", { cause }), { connection: { password: "hidden" } })

  log.warn({ err: error, secret: "hidden" }, "failed")

  expect(lines.join("")).not.toContain("hidden")
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    service: "test",
    level: "warn",
    err: { message: "no answer", cause: { message: "connection refused", code: "ECONNREFUSED" } },
  })
})
