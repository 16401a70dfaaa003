import type { CompressionWorker } from "@stillframe/db/hosts/compression-workers"
import type { LiveHost } from "@stillframe/db/hosts/hosts"
import { notHeardOf, type LostHost } from "@stillframe/domain/lost-host"
import { skewProblem, type ClockSkew } from "@stillframe/domain/postgres/clock-skew"
import type { Problem } from "@stillframe/domain/problem"

/** `where` is `host <name>`, `pool <name>`, `database`, `queue` or `api`. */
export interface PlacedProblem extends Problem {
  readonly where: string
}

export interface Readiness {
  readonly status: "ok" | "degraded" | "unavailable"
  readonly problems: readonly PlacedProblem[]
}

type Found = Pick<LiveHost, "name" | "problems">
type FoundWorker = Required<Pick<CompressionWorker, "pool" | "problems">>

interface Surroundings {
  readonly lost?: readonly LostHost[]
  /** The API's own. */
  readonly clock?: ClockSkew
  readonly database?: Problem | undefined
  readonly queue?: readonly Problem[]
}

/**
 * Judges an installation by its hosts and workers, up or not, and by the services that it uses. Without any
 * host, only reading works: `degraded`.
 */
export function readiness(
  hosts: readonly Found[],
  workers: readonly FoundWorker[],
  { lost = [], clock = right, database, queue = [] }: Surroundings = {},
): Readiness {
  const problems = distinct([
    ...(database === undefined ? [] : [{ where: "database", ...database }]),
    ...(hosts.length === 0 ? [noHost] : []),
    ...lost.map(lostHost),
    ...ofThisMachine(clock),
    ...hosts.flatMap((host) => host.problems.map((problem) => ({ where: `host ${host.name}`, ...problem }))),
    ...workers.flatMap(({ pool, problems }) =>
      problems.map((problem) => ({ where: `pool ${pool}`, ...problem })),
    ),
    ...queue.map((problem) => ({ where: "queue", ...problem })),
  ])
  if (problems.length === 0) return { status: "ok", problems }
  const useless = hosts.length > 0 && hosts.every(lacksStorage)
  return { status: useless ? "unavailable" : "degraded", problems }
}

/** Nothing works on it. With a pool that is only full, snapshots can still be forked and deleted. */
function lacksStorage(host: Found): boolean {
  return host.problems.some(({ code }) => code === "storage_unavailable")
}

const noHost: PlacedProblem = {
  where: "host",
  code: "unavailable",
  message: "no host is up; start a capture-worker on a machine for VMs",
}

const right: ClockSkew = { aheadMs: 0, errorMs: 0 }

function ofThisMachine(clock: ClockSkew): PlacedProblem[] {
  const skew = skewProblem("the API's machine", clock)
  return skew === undefined ? [] : [{ where: "api", ...skew }]
}

function lostHost(host: LostHost): PlacedProblem {
  const message = `${notHeardOf(host)}; start its capture-worker, or forget it with DELETE /hosts/${host.name}`
  return { where: `host ${host.name}`, code: "unavailable", message }
}

/** Workers that share a pool see the same. */
function distinct(problems: readonly PlacedProblem[]): PlacedProblem[] {
  return [...new Map(problems.map((problem) => [JSON.stringify(problem), problem])).values()]
}
