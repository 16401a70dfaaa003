import { SignJWT } from "jose"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { authenticator } from "./auth.ts"

const secret = "a secret of the tests, of 32 bytes"
const authenticate = authenticator(secret)

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date", "setTimeout"] }))
afterEach(() => void vi.useRealTimers())

function bearer(claims: Record<string, unknown>): Promise<string> {
  const signed = new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(Buffer.from(secret))
  return signed.then((token) => `Bearer ${token}`)
}

test("a token that was good is refused once it has expired, leeway included", async () => {
  const authorization = await bearer({ exp: Date.now() / 1_000 + 60 })
  await authenticate(authorization)

  await vi.advanceTimersByTimeAsync(89_000)
  await expect(authenticate(authorization)).resolves.toBeDefined()
  await vi.advanceTimersByTimeAsync(2_000)
  await expect(authenticate(authorization)).rejects.toThrow("invalid token")
})

test("what is known of one token is not taken for another's", async () => {
  const [reader, writer] = [
    await bearer({ sub: "a", permissions: ["snapshot:read"] }),
    await bearer({ sub: "a", permissions: ["snapshot:write"] }),
  ]
  for (const _ of ["first", "known"]) {
    expect((await authenticate(reader)).allows("snapshot:write")).toBe(false)
    expect((await authenticate(writer)).allows("snapshot:write")).toBe(true)
  }
  await expect(authenticate(`${writer.slice(0, -2)}AA`)).rejects.toThrow("invalid token")
})

test("the caller is the token's subject, else the token itself", async () => {
  const callers = await Promise.all(
    [{ sub: "a" }, { sub: "a", jti: "1" }, { jti: "1" }, { jti: "2" }].map(
      async (claims) => (await authenticate(await bearer(claims))).caller,
    ),
  )
  expect(callers[0]).toBe(callers[1])
  expect(new Set(callers).size).toBe(3)
})
