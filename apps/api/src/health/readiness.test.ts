import { expect, test } from "vitest"
import { readiness } from "./readiness.ts"

const lost = { code: "storage_unavailable", message: "the pool is not mounted" } as const
const full = { code: "insufficient_storage", message: "the disk is full" } as const
const well = { name: "a", problems: [] }

test("without problems the installation is ok", () => {
  expect(readiness([well], [{ pool: "p", problems: [] }])).toEqual({ status: "ok", problems: [] })
})

test("a host or a pool with a problem degrades it, and the answer says where", () => {
  const { status, problems } = readiness(
    [well, { name: "b", problems: [lost] }],
    [
      { pool: "p", problems: [full] },
      { pool: "p", problems: [full] },
    ],
  )

  expect(status).toBe("degraded")
  expect(problems).toEqual([
    { where: "host b", ...lost },
    { where: "pool p", ...full },
  ])
})

test("it is unavailable when every host lacks its storage, and not when a disk is only full", () => {
  expect(readiness([{ name: "b", problems: [lost] }], []).status).toBe("unavailable")
  expect(readiness([{ name: "b", problems: [full] }], []).status).toBe("degraded")
})

test("without any host it is degraded: what was captured can still be looked at", () => {
  expect(readiness([], [])).toMatchObject({ status: "degraded", problems: [{ where: "host" }] })
})

test("a host that is not heard of degrades it", () => {
  const since = "2026-11-30T10:00:00.000Z"

  const { status, problems } = readiness([well], [], { lost: [{ name: "b", since }] })

  expect(status).toBe("degraded")
  expect(problems).toMatchObject([
    { where: "host b", code: "unavailable", message: expect.stringContaining(since) },
  ])
})
