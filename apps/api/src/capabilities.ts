import { liveHosts } from "@stillframe/db/hosts"
import { hypervisors } from "@stillframe/domain/instance"
import { z } from "zod"
import { route, type ApiDeps, type Route } from "./route.ts"

const capabilitiesSchema = z
  .object({
    version: z.string().meta({ description: "exact; snapshots are restored by the same one" }),
    kinds: z.array(z.enum(["Standby", "Stopped"])),
    disk_freeze: z.enum(["layers", "reflink", "none"]).meta({
      description:
        "how the disks of a running VM are kept: by layers of our own, by sharing blocks on a file system that can, or not at all",
    }),
    attach: z.boolean(),
    fork: z.boolean(),
    disk_override: z
      .boolean()
      .meta({ description: "whether a restored VM's disks may have other names than the captured one's" }),
    compressible_memory: z.boolean(),
    compressible_memory_reason: z.string().optional().meta({ description: "why not" }),
    restores: z.enum(["same_version", "same_machine"]),
    cancel: z.boolean().meta({
      description: "whether a save that is under way can be called off; else one that is too long is refused",
    }),
    live_capture: z.boolean(),
    live_capture_reason: z.string().optional().meta({ description: "why not" }),
  })
  .meta({ id: "HypervisorCapabilities" })

const hostsSchema = z
  .object({
    hosts: z.array(
      z.object({
        name: z.string(),
        pool: z.string(),
        hypervisors: z.partialRecord(z.enum(hypervisors), capabilitiesSchema),
      }),
    ),
  })
  .meta({ id: "Capabilities" })

/** What can be asked of which host. */
export function capabilityRoutes({ db }: ApiDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/capabilities",
      operationId: "getCapabilities",
      summary: "What each host that is up can do, by hypervisor",
      answers: { 200: hostsSchema },
      scope: "instance:read",
      async handle() {
        const hosts = (await liveHosts(db)).map(({ name, pool, hypervisors }) => ({
          name,
          pool,
          hypervisors,
        }))
        return { status: 200, body: { hosts } }
      },
    }),
  ]
}
