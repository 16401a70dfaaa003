import { SignJWT } from "jose"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { authenticator } from "./auth.ts"

const secret = "a secret of the tests, of 32 bytes"
const authenticate = authenticator(secret)

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date", "setTimeout"] }))
afterEach(() => void vi.useRealTimers())

function bearer(claims: Record<string, unknown>, by = secret): Promise<string> {
  const signed = new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(Buffer.from(by))
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

test("during a rotation the tokens of both secrets are good, and no others", async () => {
  const previousSecret = "the secret before, of 32 bytes too"
  const rotating = authenticator(secret, { previousSecret })

  for (const by of [secret, previousSecret])
    await expect(rotating(await bearer({ sub: "a" }, by))).resolves.toBeDefined()
  await expect(rotating(await bearer({}, "a secret that is of nobody at all"))).rejects.toThrow(
    "invalid token",
  )
  await expect(rotating(await bearer({ exp: 1 }, previousSecret))).rejects.toThrow("invalid token")
  await expect(authenticate(await bearer({}, previousSecret))).rejects.toThrow("invalid token")
})

test("a token is refused from the moment its id is revoked, though it was good before", async () => {
  const revoked = new Set<string>()
  const revoking = authenticator(secret, { isRevoked: (id) => revoked.has(id) })
  const [one, other] = [await bearer({ jti: "1" }), await bearer({ jti: "2" })]
  await revoking(one)

  revoked.add("1")

  await expect(revoking(one)).rejects.toThrow("token revoked")
  await expect(revoking(other)).resolves.toBeDefined()
})

test("tokens that never end are told, by their hash, and refused where the rule says so", async () => {
  const told: string[] = []
  const lenient = authenticator(secret, { onEndless: (hash) => void told.push(hash) })
  const strict = authenticator(secret, { requireExp: true })
  const [endless, ending] = [await bearer({}), await bearer({ exp: Date.now() / 1_000 + 60 })]
  for (const authorization of [endless, endless, ending]) await lenient(authorization)

  expect(told).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)])
  await expect(strict(endless)).rejects.toThrow('token without "exp"')
  await expect(strict(ending)).resolves.toBeDefined()
})
