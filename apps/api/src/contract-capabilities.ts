import { arch, platform } from "node:process"
import type { LiveHost } from "@stillframe/db/hosts/hosts"
import type { Capabilities } from "@stillframe/domain/capabilities"
import { hypervisors, type Hypervisor } from "@stillframe/domain/instance"
import { z } from "zod"
import { apiVersion } from "./version.ts"

/** The runtime of a launch that names no hypervisor. */
export const defaultHypervisor = "qemu" satisfies Hypervisor

const features = z.array(z.string())

/** The members that Hypeman's clients read. */
export const contractMembers = {
  default_runtime: z
    .object({
      name: z.enum(hypervisors).meta({ description: "The hypervisor of a launch that names none." }),
      available: z.boolean().meta({ description: "True if a host that is up offers it." }),
    })
    .meta({ description: "The hypervisor of a launch that names none." }),
  features: features.meta({
    description: "The parts of the API that this server has, whatever the hypervisor.",
  }),
  host: z
    .object({
      os: z.string().meta({
        description: "The operating system of the API's machine, as Go names it.",
        examples: ["linux"],
      }),
      arch: z.string().meta({
        description: "The processor architecture of that machine, as Go names it.",
        examples: ["amd64"],
      }),
    })
    .meta({ description: "The machine that the API runs on." }),
  images: z
    .object({
      default_platform: z.string().meta({ description: "The platform of an image that names none." }),
      platforms: z.array(z.string()).meta({ description: "The platforms of images that hosts can run." }),
    })
    .meta({ description: "The platforms of guest images." }),
  network: z
    .object({
      model: z.literal("none").meta({ description: "Always `none`: guests have no network." }),
      guest_to_guest: z.literal(false).meta({ description: "Always false: guests have no network." }),
    })
    .meta({ description: "The network of guests." }),
  runtimes: z
    .array(
      z.object({
        name: z.enum(hypervisors).meta({ description: "The name of the hypervisor." }),
        available: z.boolean().meta({ description: "True if a host that is up offers it." }),
        features: features.meta({
          description:
            "The features that it has on every host that offers it: `snapshots`, `standby`, `fork`.",
        }),
      }),
    )
    .meta({ description: "Every hypervisor that the API knows, sorted by name." }),
  server: z
    .object({
      version: z.string().meta({ description: "The version of Stillframe." }),
      api_version: z.string().meta({ description: "The version of this API's description." }),
    })
    .meta({ description: "The versions of the server." }),
}

/** The capabilities of the hosts in the contract's members. */
export function inContractsWords(
  hosts: readonly Pick<LiveHost, "hypervisors">[],
): z.output<z.ZodObject<typeof contractMembers>> {
  const runtimes = hypervisors.toSorted().map((name) => {
    const offers = hosts.flatMap(({ hypervisors: offered }) => offered[name] ?? [])
    return { name, available: offers.length > 0, features: featuresOfAll(offers) }
  })
  const imagePlatform = `linux/${goArch}`
  return {
    default_runtime: {
      name: defaultHypervisor,
      available: runtimes.some(({ name, available }) => name === defaultHypervisor && available),
    },
    features: ["events", "instances", "snapshots", "webhooks"],
    host: { os: platform, arch: goArch },
    images: { default_platform: imagePlatform, platforms: [imagePlatform] },
    network: { model: "none", guest_to_guest: false },
    runtimes,
    server: { version: apiVersion, api_version: apiVersion },
  }
}

const goArch = arch === "x64" ? "amd64" : arch

/** A client that picks any host must find what it read. */
function featuresOfAll(offers: readonly Capabilities[]): string[] {
  if (offers.length === 0) return []
  const can: Readonly<Record<string, (offer: Capabilities) => boolean>> = {
    snapshots: ({ kinds }) => kinds.length > 0,
    standby: ({ kinds }) => kinds.includes("Standby"),
    fork: ({ fork }) => fork,
  }
  return Object.keys(can).filter((feature) => offers.every((offer) => can[feature]?.(offer) === true))
}
