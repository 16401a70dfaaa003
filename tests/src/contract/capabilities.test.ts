import Hypeman from "@onkernel/hypeman"
import { expect, test } from "vitest"
import { hostQemu, testApi, token } from "../api/test-api.ts"

test("the official client reads from the capabilities what hosts can do", async () => {
  await using api = await testApi()
  const client = new Hypeman({ apiKey: token({ sub: "tester" }), baseURL: api.api.url, logLevel: "off" })
  const before = await client.capabilities.get()
  await api.host("h1")
  await api.host("h2", { fork: false })

  const after = await client.capabilities.get()

  const none = { available: false, features: [] }
  expect(before).toMatchObject({
    default_runtime: { name: "qemu", available: false },
    runtimes: ["cloud-hypervisor", "firecracker", "qemu", "qemu-microvm", "vz"].map((name) => ({
      name,
      ...none,
    })),
  })
  expect(after).toMatchObject({
    default_runtime: { name: "qemu", available: true },
    features: ["events", "instances", "snapshots", "webhooks"],
    host: { os: process.platform, arch: expect.stringMatching(/^(amd64|arm64)$/) },
    images: {
      default_platform: expect.stringMatching(/^linux\//),
      platforms: [after.images.default_platform],
    },
    network: { model: "none", guest_to_guest: false },
    server: { version: expect.stringMatching(/^\d+\.\d+\.\d+$/), api_version: after.server.version },
  })
  // One of the two cannot fork, so a client that picks any must not count on it.
  expect(after.runtimes.find(({ name }) => name === "qemu")).toEqual({
    name: "qemu",
    available: true,
    features: ["snapshots", "standby"],
  })
  expect(after).toMatchObject({ hosts: [{ name: "h1", hypervisors: { qemu: hostQemu } }, { name: "h2" }] })
})
