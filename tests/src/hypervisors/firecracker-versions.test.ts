import { call } from "@stillframe/hypervisors/firecracker/api"
import { loadSnapshot } from "@stillframe/hypervisors/firecracker/requests"
import { parseVersion } from "@stillframe/hypervisors/firecracker/version"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { expect, test } from "vitest"
import { describesLoadMember, violations } from "./firecracker-spec.ts"
import { capture, expectDescribed, fakeFirecracker, guest, restoreVm, startVm } from "./firecracker-vm.ts"
import { firstGap, ground, serial, untilTicks } from "./test-vm.ts"

const versions = ["1.12.1", "1.13.2", "1.14.4", "1.15.1", "1.16.1"]

test.each(versions)("Firecracker %s is asked nothing but what its description has", async (version) => {
  await using place = await ground()
  const binary = await fakeFirecracker(place, version)
  const { payload, printed } = await capture(place, await startVm(place, binary, { disk: "x" }))

  const restored = await restoreVm(place, binary, payload)
  await firecracker.begin(restored.dir, guest)
  await untilTicks(restored.dir, 3)

  expect(firstGap(printed + serial(restored.dir))).toBeUndefined()
  const exchanges = await expectDescribed(place)
  expect(exchanges.map(({ method, path }) => `${method} ${path}`)).toEqual(
    expect.arrayContaining(["PUT /snapshot/create", "PUT /snapshot/load", "PUT /drives/disk0"]),
  )
})

const overrides = {
  network_overrides: { network: [{ iface_id: "net0", host_dev_name: "tap1" }] },
  vsock_override: { vsock: { uds_path: "vsock.sock" } },
} as const
const members = ["network_overrides", "vsock_override"] as const
const cases = versions.flatMap((version) => members.map((member) => [version, member] as const))
const isKnown = ([version, member]: (typeof cases)[number]): boolean => describesLoadMember(version, member)

test.each(cases.filter(isKnown))("Firecracker %s is sent %s, which it knows", async (version, member) => {
  await using place = await ground()
  const { dir } = await startVm(place, await fakeFirecracker(place, version))

  const load = loadSnapshot(parseVersion(version), "saved", overrides[member])

  // The VM runs by now; what matters is that the body was read.
  await expect(call(dir, load, 5_000)).rejects.toMatchObject({
    said: expect.stringContaining("not supported after starting"),
  })
  await expectDescribed(place)
})

test.each(cases.filter((known) => !isKnown(known)))(
  "Firecracker %s is not sent %s, which it would refuse",
  async (version, member) => {
    await using place = await ground()
    const { dir } = await startVm(place, await fakeFirecracker(place, version))
    const load = (to: string) => loadSnapshot(parseVersion(to), "saved", overrides[member])

    expect(() => load(version)).toThrow(expect.objectContaining({ code: "not_supported" }))
    await expect(call(dir, load("1.16.1"), 5_000)).rejects.toMatchObject({
      said: expect.stringContaining(`unknown field \`${member}\``),
    })
  },
)

test("the check of exchanges sees what is not described", () => {
  const fine = { version: "1.12.1", method: "PATCH", path: "/vm", body: '{"state":"Paused"}', status: 204 }
  const load = { ...fine, method: "PUT", path: "/snapshot/load" }

  expect(violations(fine)).toEqual([])
  expect(violations({ ...fine, body: '{"state":"Stopped"}' })).toHaveLength(1)
  expect(violations({ ...fine, body: '{"state":"Paused","now":true}' })).toHaveLength(1)
  expect(violations({ ...fine, path: "/vms" })).toHaveLength(1)
  expect(violations({ ...fine, method: "GET", path: "/", body: "", status: 200, answer: {} })).not.toEqual([])
  expect(violations({ ...load, body: '{"snapshot_path":"s","network_overrides":[]}' })).toEqual([])
  expect(violations({ ...load, body: '{"snapshot_path":"s","clock_realtime":true}' })).toHaveLength(1)
})
