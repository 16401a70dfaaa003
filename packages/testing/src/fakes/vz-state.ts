import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto"

interface State {
  machine: object
  tick: number
  sum: number
}

/** Stands for the one that the Mac keeps in its hardware. */
const hostKey = createHash("sha256").update("the key of this Mac").digest()
const ivBytes = 12
const tagBytes = 16
/** As much of the memory as a guest that small has written. */
const memoryBytesMax = 4 * 1024 ** 2

/** A saved machine as the framework writes one: a single file that nobody else can read, or make smaller. */
export function sealState(state: State, memoryBytes: number): Buffer {
  const iv = randomBytes(ivBytes)
  const cipher = createCipheriv("aes-256-gcm", hostKey, iv)
  const text = Buffer.from(`${JSON.stringify(state)}\n`)
  const memory = Buffer.alloc(Math.min(memoryBytes, memoryBytesMax))
  const sealed = Buffer.concat([cipher.update(text), cipher.update(memory), cipher.final()])
  return Buffer.concat([iv, cipher.getAuthTag(), sealed])
}

/** Throws when a byte of it is missing or another. */
export function openState(file: Buffer): State {
  const decipher = createDecipheriv("aes-256-gcm", hostKey, file.subarray(0, ivBytes))
  decipher.setAuthTag(file.subarray(ivBytes, ivBytes + tagBytes))
  const text = Buffer.concat([decipher.update(file.subarray(ivBytes + tagBytes)), decipher.final()])
  return JSON.parse(text.subarray(0, text.indexOf("\n")).toString("utf8")) as State
}
