import { scopes } from "@stillframe/domain/scopes"
import type { z } from "zod"
import { keyPattern } from "../http/request-identity.ts"

/** A schema as OpenAPI shows it; what has a name only as a pointer to where it stands. */
export type ToReference = (schema: z.ZodType, io: "input" | "output") => unknown

type Json = Readonly<Record<string, unknown>>

/** The parameters of paths, by the first part of the path. */
export const pathTexts: Readonly<Record<string, string>> = {
  "instances/id": "The id of the instance, its name, or the beginning of its id if that is unique.",
  "snapshots/id": "The id of the snapshot.",
  "webhooks/id": "The id of the webhook.",
  "deliveries/id": "The id of the delivery.",
  "instances/snapshotId": "The id of the snapshot.",
  "hosts/name": "The name of the host.",
}

export const errorTexts: Readonly<Record<number, string>> = {
  400: "The request does not follow its schema, or asks for something that is not possible.",
  401: "The token is missing or not valid.",
  403: "The token lacks the scope.",
  404: "The resource does not exist.",
  409: "The state of the resource does not allow it, or the name is taken.",
  413: "The body is larger than 64 KiB, or than 512 KiB where an instance is created.",
  422: "The Idempotency-Key was used with another body before.",
  429: "The caller, or the address of a request without a valid token, sends too many requests or has too much open. Try again after `retry-after`.",
  500: "The work failed, or the server has a fault.",
  501: "The host or its hypervisor does not support this.",
  503: "The database, the host or the storage pool cannot be reached, or is still starting. Try again.",
  504: "The work was not done in time. Only with `SNAPSHOT_CREATE=sync`.",
}

const text = { type: "string" } as const
export const headers: Json = {
  "X-Request-Id": { description: "The id of the request, which is also in the server's log.", schema: text },
  "X-Ignored": {
    description:
      "Names the query parameters and body members that the API does not know and has ignored, such as `query.source, body.launch.dsks`. Absent when it knows all of them.",
    schema: text,
  },
  "X-Warning": {
    description:
      "Warns of later trouble: the disks of the host's VMs may grow by more than is free in its `DATA_DIR`. Absent without such trouble, and from a 202 that is sent before the host has looked: with `respond-async` the answer waits 250 ms for that.",
    schema: text,
  },
  Location: { description: "The path of the resource.", schema: text },
  Link: {
    description: 'The URL of the next page, with `rel="next"`. Absent on the last page.',
    schema: text,
  },
  "X-Next-Cursor": { description: "The `cursor` of the next page. Absent on the last page.", schema: text },
  "Preference-Applied": { description: "The preference of `Prefer` that was followed.", schema: text },
  "Idempotent-Replayed": {
    description: "`true` when an earlier request with the same `Idempotency-Key` has done the work.",
    schema: text,
  },
  "x-should-retry": {
    description: "`true` if sending the same request again can help.",
    schema: { enum: ["true", "false"] },
  },
  "retry-after": {
    description: "The time to wait before sending the request again, in seconds.",
    schema: { type: "string", pattern: "^[0-9]+$" },
  },
  "retry-after-ms": {
    description: "The time to wait before sending the request again, in milliseconds.",
    schema: { type: "string", pattern: "^[0-9]+$" },
  },
}

export const parameters: Json = {
  RequestId: {
    name: "X-Request-Id",
    in: "header",
    description:
      "Your own id for the request: up to 128 letters, digits and . _ : -. The answer and the log have it.",
    schema: text,
  },
  Prefer: {
    name: "Prefer",
    in: "header",
    description:
      "`wait=N` holds the answer until the work is done, for up to N seconds (0 to 55). `respond-async` answers at once.",
    schema: text,
  },
  LastEventId: {
    name: "Last-Event-ID",
    in: "header",
    description: "The last `id` that you have read. The stream continues after it and ignores `after`.",
    schema: { type: "string", pattern: "^[0-9]{1,16}$" },
  },
  IdempotencyKey: {
    name: "Idempotency-Key",
    in: "header",
    description:
      "A key of your own, 1 to 255 visible ASCII characters. The same request with the same key within 24 hours is not executed again: the answer is the current state of the resource that the first one made.",
    schema: { type: "string", pattern: keyPattern.source },
  },
}

export const bearer: Json = {
  type: "http",
  scheme: "bearer",
  bearerFormat: "JWT",
  description: `HMAC-signed. \`permissions\` lists scopes: ${scopes.join(", ")}; without it everything is allowed.`,
}
