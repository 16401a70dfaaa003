import type { VzHost } from "@stillframe/hypervisors/vz/host"

/** What an Apple silicon Mac with macOS 14 says of itself. */
export const mac: VzHost = {
  platform: "darwin",
  arch: "arm64",
  release: "23.6.0",
  hardwareUuid: async () => "9C2D8E7A-0000-4000-8000-000000000001",
}
