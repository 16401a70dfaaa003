import { createSecretKey } from "node:crypto"
import { createId } from "@stillframe/domain/ids"
import { SignJWT } from "jose"

/** A bearer token for so many seconds; without scopes it may do everything. */
export function mintToken(
  jwtSecret: string,
  lifetimeSeconds: number,
  { subject = "local", scopes = ["*"] }: { subject?: string; scopes?: readonly string[] } = {},
): Promise<string> {
  return (
    new SignJWT({ permissions: scopes })
      .setProtectedHeader({ alg: "HS256" })
      .setSubject(subject)
      // By which it can be revoked.
      .setJti(createId())
      .setIssuedAt()
      .setExpirationTime(`${lifetimeSeconds}s`)
      .sign(createSecretKey(Buffer.from(jwtSecret)))
  )
}
