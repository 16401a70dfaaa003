import { StillframeError } from "@stillframe/domain/errors"
import { raw, type Request, type Response } from "express"
import { assertStorable } from "./storable.ts"

/** The largest body of a route that says nothing else, in KiB. */
const bodyKibUnasked = 64

/**
 * The request's body as JSON. Throws `bad_request` in the contract's words when the body is missing, is not
 * JSON, is not declared as JSON or holds what the database cannot keep, and `payload_too_large` above
 * `kibMax`. `empty` stands for the body where one may be missing.
 */
export async function readJson(
  req: Request,
  res: Response,
  { kibMax = bodyKibUnasked, empty }: { kibMax?: number | undefined; empty?: object | undefined },
): Promise<unknown> {
  const readBytes = raw({ type: () => true, limit: kibMax * 1024, inflate: false })
  await new Promise<void>((resolve, reject) => {
    readBytes(req, res, (error?: unknown) => (error === undefined ? resolve() : reject(error)))
  })
  const body: unknown = req.body
  if (!Buffer.isBuffer(body) || body.length === 0) {
    if (empty !== undefined) return empty
    throw mistake("value is required but missing")
  }
  const type = req.headers["content-type"] ?? ""
  if (!jsonType.test(type)) throw mistake(`header Content-Type has unexpected value ${JSON.stringify(type)}`)
  const value = parseJson(decode(body))
  assertStorable(value, mistake)
  return value
}

// JSON has one encoding (RFC 8259).
const jsonType = /^application\/json\s*(;\s*(charset\s*=\s*"?utf-?8"?\s*)?)?$/i

// A byte that is replaced would change what the caller has asked for.
const utf8 = new TextDecoder("utf-8", { fatal: true })

function decode(body: Buffer): string {
  try {
    return utf8.decode(body)
  } catch {
    throw mistake("it is not UTF-8; encode the JSON as UTF-8")
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw mistake(`failed to decode request body: ${(error as Error).message}`)
  }
}

function mistake(reason: string): StillframeError {
  return new StillframeError("bad_request", `request body has an error: ${reason}`)
}
