import { liveCompressionWorkers } from "@stillframe/db/compression-workers"
import { liveHosts } from "@stillframe/db/hosts"
import type { HostCapabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { healthSchema, readySchema } from "./resources.ts"
import { route, type ApiDeps, type Route } from "./route.ts"

/** Open to anybody: whether the process answers, and whether it can do its work. */
export function healthRoutes({ db, log }: ApiDeps): Route[] {
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
      summary: "Whether the process can do its work, and which hosts and workers are up",
      answers: { 200: readySchema },
      async handle() {
        const up = Promise.all([liveHosts(db), liveCompressionWorkers(db)])
        const [hosts, workers] = await up.catch((cause: unknown) => {
          log.warn({ err: cause }, "not ready")
          throw new StillframeError(
            "unavailable",
            "the database can't be reached; see the log for the reason",
            { cause },
          )
        })
        const body = {
          status: "ok",
          hosts: hosts.map(({ name, hypervisors }) => ({ name, hypervisors: versionsOf(hypervisors) })),
          compression_workers: workers,
        }
        return { status: 200, body }
      },
    }),
  ]
}

function versionsOf(hypervisors: HostCapabilities): Record<string, string> {
  return Object.fromEntries(Object.entries(hypervisors).map(([name, { version }]) => [name, version]))
}
