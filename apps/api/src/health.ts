import { liveCompressionWorkers } from "@stillframe/db/compression-workers"
import { liveHosts } from "@stillframe/db/hosts"
import type { HostCapabilities } from "@stillframe/domain/capabilities"
import { problem } from "./problem.ts"
import { readiness, type Readiness } from "./readiness.ts"
import { healthSchema, notReadySchema, readySchema } from "./resources.ts"
import { route, type Answer, type ApiDeps, type Route } from "./route.ts"

/** Open to anybody: whether the process answers, and whether the installation can do its work. */
export function healthRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/health",
      operationId: "getHealth",
      summary: "Whether the process answers",
      answers: { 200: healthSchema },
      handle: async () => ({ status: 200, body: { status: "ok" } }),
    }),
    route({
      method: "get",
      path: "/ready",
      operationId: "getReady",
      summary: "Whether the installation can do its work, and which hosts and workers are up",
      answers: { 200: readySchema, 503: notReadySchema },
      handle: () => ready(deps),
    }),
  ]
}

async function ready({ db, log }: ApiDeps): Promise<Answer> {
  const up = Promise.all([liveHosts(db), liveCompressionWorkers(db)])
  const found = await up.catch((err: unknown) => {
    log.warn({ err }, "not ready")
    return undefined
  })
  if (found === undefined) return notReady({ ...databaseGone, hosts: [], compression_workers: [] })
  const [hosts, workers] = found
  const body = {
    ...readiness(hosts, workers),
    hosts: hosts.map(({ name, hypervisors }) => ({ name, hypervisors: versionsOf(hypervisors) })),
    compression_workers: workers.map(({ name, pool, codecs }) => ({ name, pool, codecs })),
  }
  return body.status === "unavailable" ? notReady(body) : { status: 200, body }
}

const databaseGone: Readiness = {
  status: "unavailable",
  problems: [
    {
      where: "database",
      code: "unavailable",
      message: "the database can't be reached; the API's log says why",
    },
  ],
}

/** An error as any other, with all that `/ready` tells. */
function notReady(
  body: Readiness & { readonly hosts: object[]; readonly compression_workers: object[] },
): Answer {
  const answer = problem("unavailable", body.problems.map(({ message }) => message).join("; "))
  return { ...answer, body: { ...answer.body, ...body } }
}

function versionsOf(hypervisors: HostCapabilities): Record<string, string> {
  return Object.fromEntries(Object.entries(hypervisors).map(([name, { version }]) => [name, version]))
}
