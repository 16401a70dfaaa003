import { StillframeError } from "@stillframe/domain/errors"
import { text, type Request, type Response } from "express"
import { protoKeyMessage } from "./query.ts"

const bodyBytesMax = 1024 * 1024

const readText = text({ type: () => true, limit: bodyBytesMax, inflate: false })

/**
 * The request's body as JSON. Throws `bad_request` in the contract's words when there is none, it is no JSON or says it is
 * not, and `payload_too_large` above 1 MiB. `empty` is what stands for no body where one may be missing.
 */
export async function readJson(req: Request, res: Response, empty?: object): Promise<unknown> {
  await new Promise<void>((resolve, reject) => {
    readText(req, res, (error?: unknown) => (error === undefined ? resolve() : reject(error)))
  })
  const body: unknown = req.body
  if (typeof body !== "string" || body === "") {
    if (empty !== undefined) return empty
    throw mistake("value is required but missing")
  }
  const type = req.headers["content-type"] ?? ""
  if (!jsonType.test(type)) throw mistake(`header Content-Type has unexpected value ${JSON.stringify(type)}`)
  return parseJson(body)
}

const jsonType = /^application\/json\s*(;|$)/i

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body, body.includes("__proto__") ? refuseProto : undefined)
  } catch (error) {
    if (error instanceof StillframeError) throw error
    throw mistake(`failed to decode request body: ${(error as Error).message}`)
  }
}

function refuseProto(key: string, value: unknown): unknown {
  if (key === "__proto__") throw mistake(protoKeyMessage)
  return value
}

function mistake(reason: string): StillframeError {
  return new StillframeError("bad_request", `request body has an error: ${reason}`)
}
