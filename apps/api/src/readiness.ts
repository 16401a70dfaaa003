import type { CompressionWorker } from "@stillframe/db/compression-workers"
import type { LiveHost } from "@stillframe/db/hosts"
import type { Problem } from "@stillframe/domain/problem"

/** Where a problem was found: `host <name>`, `pool <name>`, `database` or `queue`. */
export interface PlacedProblem extends Problem {
  readonly where: string
}

export interface Readiness {
  readonly status: "ok" | "degraded" | "unavailable"
  readonly problems: readonly PlacedProblem[]
}

type Found = Pick<LiveHost, "name" | "problems">
type FoundWorker = Required<Pick<CompressionWorker, "pool" | "problems">>

/** Judges an installation by the hosts and workers that are up. Without any host, only reading works: `degraded`. */
export function readiness(hosts: readonly Found[], workers: readonly FoundWorker[]): Readiness {
  const problems = distinct([
    ...(hosts.length === 0 ? [noHost] : []),
    ...hosts.flatMap((host) => host.problems.map((problem) => ({ where: `host ${host.name}`, ...problem }))),
    ...workers.flatMap(({ pool, problems }) =>
      problems.map((problem) => ({ where: `pool ${pool}`, ...problem })),
    ),
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

/** Workers that share a pool see the same. */
function distinct(problems: readonly PlacedProblem[]): PlacedProblem[] {
  return [...new Map(problems.map((problem) => [JSON.stringify(problem), problem])).values()]
}
