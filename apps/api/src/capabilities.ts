import { liveHosts } from "@stillframe/db/hosts/hosts"
import { hypervisors } from "@stillframe/domain/instance"
import { z } from "zod"
import { contractMembers, inContractsWords } from "./contract-capabilities.ts"
import type { ApiDeps } from "./http/deps.ts"
import { route, type Route } from "./http/route.ts"

const reason = z.string().optional()

const capabilitiesSchema = z
  .object({
    version: z.string().meta({
      description:
        "The exact version of the hypervisor. `restores` says whether another version can load its snapshots.",
      examples: ["7.2.22"],
    }),
    kinds: z
      .array(z.enum(["Standby", "Stopped"]))
      .meta({ description: "The kinds of snapshots that can be taken of its VMs." }),
    disk_freeze: z.enum(["layers", "reflink", "none"]).meta({
      description:
        "The way in which the disks of a running VM are frozen: `layers` puts a new layer on each, `reflink` shares their blocks on a file system that can do so, `none` refuses disks that are written.",
    }),
    attach: z
      .boolean()
      .meta({ description: "True if the API can attach to a VM that was started outside of Stillframe." }),
    fork: z.boolean().meta({ description: "True if snapshots of its VMs can be forked." }),
    disk_override: z.boolean().meta({
      description: "True if the disks of a restored VM may have other names than those of the captured VM.",
    }),
    compressible_memory: z
      .boolean()
      .meta({ description: "True if the memory of its snapshots can be compressed." }),
    compressible_memory_reason: reason.meta({
      description: "The reason why the memory cannot be compressed. Absent where it can.",
    }),
    restores: z.enum(["same_version", "same_machine"]).meta({
      description:
        "Which hypervisor can load a snapshot: one of the very same version, or any that has the same machine type.",
    }),
    cancel: z.boolean().meta({
      description:
        "True if a capture can be cancelled while it saves the memory. Where it is false, a capture that would take too long is refused.",
    }),
    live_capture: z
      .boolean()
      .meta({ description: 'True if a snapshot can be taken with `"capture": "live"`.' }),
    live_capture_reason: reason.meta({
      description: "The reason why live capture is not offered. Absent where it is.",
    }),
  })
  .meta({ id: "HypervisorCapabilities", description: "The capabilities of one hypervisor on a host." })

const hostsSchema = z
  .object({
    hosts: z
      .array(
        z.object({
          name: z.string().meta({ description: "The name of the host, as `host` of a launch takes it." }),
          pool: z.string().meta({ description: "The storage pool that keeps the snapshots of its VMs." }),
          hypervisors: z
            .partialRecord(z.enum(hypervisors), capabilitiesSchema)
            .meta({ description: "The capabilities of the host, by hypervisor." }),
        }),
      )
      .meta({ description: "The hosts that are up." }),
    ...contractMembers,
  })
  .meta({ id: "Capabilities", description: "The capabilities of the hosts that are up." })

/** The capabilities of each host, in our members and in the contract's. */
export function capabilityRoutes({ db }: ApiDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/capabilities",
      operationId: "getCapabilities",
      summary: "Get what the hosts can do",
      answers: { 200: hostsSchema },
      scope: "instance:read",
      async handle() {
        const hosts = (await liveHosts(db)).map(({ name, pool, hypervisors }) => ({
          name,
          pool,
          hypervisors,
        }))
        return { status: 200, body: { hosts, ...inContractsWords(hosts) } }
      },
    }),
  ]
}
