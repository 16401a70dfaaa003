import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto"
import { link, readFile, unlink, writeFile } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"

const nonceBytes = 12
const tagBytes = 16

/** AES-256-GCM under a key derived from `key`: nonce, tag, ciphertext. */
export function sealSecret(key: string, secret: string): Buffer {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv("aes-256-gcm", derive(key), nonce)
  const sealed = Buffer.concat([cipher.update(secret, "utf8"), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed])
}

/** Throws `internal_error` when `sealed` was not made with this key. */
export function openSecret(key: string, sealed: Buffer): string {
  const decipher = createDecipheriv("aes-256-gcm", derive(key), sealed.subarray(0, nonceBytes))
  decipher.setAuthTag(sealed.subarray(nonceBytes, nonceBytes + tagBytes))
  try {
    return decipher.update(sealed.subarray(nonceBytes + tagBytes), undefined, "utf8") + decipher.final("utf8")
  } catch (cause) {
    throw new StillframeError(
      "internal_error",
      "a webhook's secret can't be decrypted; set SECRETS_KEY to the key it was made with",
      { cause },
    )
  }
}

function derive(key: string): Buffer {
  return createHash("sha256").update("stillframe secrets\0").update(key).digest()
}

/**
 * The secret in `file`, made (32 random bytes, mode 0600) if there is none. Processes that start together
 * agree on one.
 */
export async function secretFile(file: string): Promise<string> {
  const existing = await readFile(file, "utf8").catch(absent)
  if (existing !== undefined) {
    if (existing.trim().length >= secretLengthMin) return existing.trim()
    throw new StillframeError(
      "invalid_request",
      `${file} holds no secret of ${secretLengthMin} characters; delete it to get a new one`,
    )
  }
  const own = `${file}.${process.pid}`
  await writeFile(own, randomBytes(32).toString("base64url"), { flag: "wx", mode: 0o600, flush: true })
  try {
    // `link` is atomic: one of two makers wins, and a reader never sees half a file.
    await link(own, file).catch(alreadyThere)
  } finally {
    await unlink(own)
  }
  return secretFile(file)
}

const secretLengthMin = 32

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error
}

function alreadyThere(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST") throw error
}
