import { liveCompressionWorkers } from "@stillframe/db/hosts/compression-workers"
import { knownHosts } from "@stillframe/db/hosts/known"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { queueProblems } from "@stillframe/db/operations/queue-check"
import type { HostCapabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import type { ApiDeps } from "../http/deps.ts"
import { problem } from "../http/problem.ts"
import { route, type Answer, type Route } from "../http/route.ts"
import { readiness, type Readiness } from "./readiness.ts"
import { remembered } from "./remembered.ts"
import { healthSchema, notReadySchema, readySchema } from "./schemas.ts"

/** Open to anybody: whether the process answers, and whether the installation can do its work. */
export function healthRoutes(deps: ApiDeps): Route[] {
  const ready = remembered(() => judgeInstallation(deps), deps.readyCacheMs ?? 0)
  return [
    route({
      method: "get",
      path: "/health",
      operationId: "getHealth",
      summary: "Check that the API answers",
      answers: { 200: healthSchema },
      handle: async () => ({ status: 200, body: { status: "ok" } }),
    }),
    route({
      method: "get",
      path: "/ready",
      operationId: "getReady",
      summary: "Report if the installation can do its work, and which hosts and workers are up",
      answers: { 200: readySchema, 503: notReadySchema },
      handle: async () =>
        deps.starting() ? notReady({ ...notStarted, hosts: [], compression_workers: [] }) : ready(),
    }),
  ]
}

async function judgeInstallation({ db, log, databaseProblem: diskProblem }: ApiDeps): Promise<Answer> {
  const up = Promise.all([knownHosts(db), liveCompressionWorkers(db), queueProblems(db), measureClock(db)])
  const found = await up.catch((err: unknown) => {
    if (!isConnectionLoss(err)) log.warn({ err }, "not ready")
    return databaseProblem(err)
  })
  if ("status" in found) return notReady({ ...found, hosts: [], compression_workers: [] })
  const [known, workers, queue, clock] = found
  const hosts = known.filter((host) => host.up)
  const lost = known
    .filter((host) => !host.up)
    .map(({ name, heartbeat_at }) => ({ name, since: heartbeat_at.toISOString() }))
  const body = {
    ...readiness(hosts, workers, { lost, clock, database: diskProblem?.(), queue }),
    hosts: hosts.map(({ name, hypervisors }) => ({ name, hypervisors: versionsOf(hypervisors) })),
    compression_workers: workers.map(({ name, pool, codecs }) => ({ name, pool, codecs })),
  }
  return body.status === "unavailable" ? notReady(body) : { status: 200, body }
}

export const startingMessage = "the workers of this machine are still starting; try again in a moment"

const notStarted: Readiness = {
  status: "unavailable",
  problems: [{ where: "api", code: "unavailable", message: startingMessage }],
}

function databaseProblem(error: unknown): Readiness {
  const unreachable = "the database can't be reached; the API's log says why"
  const message = error instanceof StillframeError ? error.message : unreachable
  return { status: "unavailable", problems: [{ where: "database", code: "unavailable", message }] }
}

/** An error as any other, with all that `/ready` tells. */
function notReady(
  body: Readiness & { readonly hosts: object[]; readonly compression_workers: object[] },
): Answer {
  const messages = new Set(body.problems.map(({ message }) => message.replace(/\.$/, "")))
  const answer = problem("unavailable", [...messages].join("; "))
  return { ...answer, body: { ...answer.body, ...body } }
}

/** By hypervisor. */
export function versionsOf(hypervisors: HostCapabilities): Record<string, string> {
  return Object.fromEntries(Object.entries(hypervisors).map(([name, { version }]) => [name, version]))
}
