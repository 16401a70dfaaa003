import { createSecretKey } from "node:crypto"
import { SignJWT } from "jose"

/** A bearer token that may do everything, for so many seconds. */
export function mintToken(jwtSecret: string, lifetimeSeconds: number): Promise<string> {
  return new SignJWT({ permissions: ["*"] })
    .setProtectedHeader({ alg: "HS256" })
    .setSubject("local")
    .setIssuedAt()
    .setExpirationTime(`${lifetimeSeconds}s`)
    .sign(createSecretKey(Buffer.from(jwtSecret)))
}
