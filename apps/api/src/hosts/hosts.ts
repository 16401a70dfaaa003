import { forgetHost } from "@stillframe/db/hosts/forget"
import { knownHosts, leavesOf, type KnownHost } from "@stillframe/db/hosts/known"
import { StillframeError } from "@stillframe/domain/errors"
import { hostNamePattern } from "@stillframe/domain/text/names"
import { z } from "zod"
import { versionsOf } from "../health/health.ts"
import type { ApiDeps } from "../http/deps.ts"
import { numberInQuery } from "../http/input/schemas.ts"
import { route, type Call, type Route } from "../http/route.ts"
import { forgottenHostSchema, hostSchema, hostWithLeavesSchema, type HostResource } from "./schemas.ts"

const instancesMax = 1_000_000

/**
 * The machines that VMs run on. They register by themselves; forgetting is for one that will not come back.
 */
export function hostRoutes({ db, waker }: ApiDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/hosts",
      operationId: "listHosts",
      summary: "List hosts",
      answers: { 200: z.array(hostSchema) },
      scope: "instance:read",
      handle: async () => ({ status: 200, body: (await knownHosts(db)).map(hostResource) }),
    }),
    route({
      method: "get",
      path: "/hosts/:name",
      operationId: "getHost",
      summary: "Get a host",
      answers: { 200: hostWithLeavesSchema },
      scope: "instance:read",
      async handle(call) {
        const [host] = await knownHosts(db, hostNameOf(call))
        if (host === undefined) throw hostNotFound()
        return { status: 200, body: { ...hostResource(host), leaves: await leavesOf(db, host) } }
      },
    }),
    route({
      method: "delete",
      path: "/hosts/:name",
      operationId: "forgetHost",
      summary: "Forget a host",
      answers: { 200: forgottenHostSchema },
      errors: [409],
      scope: "instance:write",
      alsoScope: { scope: "snapshot:delete" },
      query: z.object({
        confirm: numberInQuery({ min: 0, max: instancesMax }).optional().meta({
          description:
            "The number of instances that the host has. Without it the answer is a 409 that says what would be lost.",
        }),
      }),
      async handle(call) {
        const leaves = await forgetHost(db, hostNameOf(call), call.query.confirm)
        waker.wake("operations")
        waker.wake("events")
        return { status: 200, body: leaves }
      },
    }),
  ]
}

/** The host's name in a path. Throws `not_found` for what no host can be called. */
function hostNameOf({ params: { name = "" } }: Pick<Call<unknown, unknown>, "params">): string {
  if (!hostNamePattern.test(name)) throw hostNotFound()
  return name
}

function hostNotFound(): StillframeError {
  return new StillframeError("not_found", "host not found")
}

function hostResource(host: KnownHost): HostResource {
  const { name, pool, up, heartbeat_at, hypervisors, problems, instance_count } = host
  return {
    name,
    pool,
    up,
    heartbeat_at: heartbeat_at.toISOString(),
    hypervisors: versionsOf(hypervisors),
    problems: [...problems],
    instance_count,
  }
}
