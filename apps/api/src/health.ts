import { liveHosts } from "@stillframe/db/hosts"
import { StillframeError } from "@stillframe/domain/errors"
import { route, type ApiDeps, type Route } from "./route.ts"

/** Open to anybody: whether the process answers, and whether it can do its work. */
export function healthRoutes({ db, log }: ApiDeps): Route[] {
  return [
    route({ method: "get", path: "/health", handle: async () => ({ status: 200, body: { status: "ok" } }) }),
    route({
      method: "get",
      path: "/ready",
      async handle() {
        const hosts = await liveHosts(db).catch((cause: unknown) => {
          log.warn({ err: cause }, "not ready")
          throw new StillframeError(
            "unavailable",
            "the database can't be reached; see the log for the reason",
            { cause },
          )
        })
        return {
          status: 200,
          body: { status: "ok", hosts: hosts.map(({ name, hypervisors }) => ({ name, hypervisors })) },
        }
      },
    }),
  ]
}
