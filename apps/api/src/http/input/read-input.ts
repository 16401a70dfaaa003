import type { Request, Response } from "express"
import type { Route } from "../route.ts"
import { readJson } from "./body.ts"
import { ignoredHeader, ignoredMembers, ignoredParameters } from "./ignored.ts"
import { parseQuery } from "./query.ts"
import { boundBody } from "./validate.ts"

/**
 * The query and the body of a request as they were sent. The answer, also one that refuses them, names the
 * members that are ignored.
 */
export async function readInput(
  { query: querySchema, body: bodySchema, emptyBody, bodyKibMax }: Route,
  req: Request,
  res: Response,
): Promise<{ query: Record<string, unknown>; body: unknown }> {
  const query = parseQuery(req.url)
  const body =
    bodySchema === undefined ? undefined : await readJson(req, res, { kibMax: bodyKibMax, empty: emptyBody })
  if (bodySchema !== undefined) boundBody(bodySchema, body)
  const ignored = ignoredHeader({
    query: ignoredParameters(querySchema, query),
    body:
      bodySchema === undefined ? (hasBody(req) ? ["body"] : []) : ignoredMembers(bodySchema, body, "body"),
  })
  if (ignored !== undefined) res.set("X-Ignored", ignored)
  return { query, body }
}

/** Clients send `{}` where a call takes no body, so two bytes say nothing. */
function hasBody({ headers }: Request): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 2
}
