import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { expect, test } from "vitest"
import { fakeVmm } from "./cloud-hypervisor-fake.ts"
import { ground, never } from "./test-vm.ts"
import { saveVm, startVm } from "./vmm-vm.ts"

test.each(["v48.0", "v53.0"])(
  "a binary of %s says what it is, and another program is none",
  async (version) => {
    await using place = await ground()
    const { vmm, binary } = await fakeVmm(place, version)

    expect(await vmm.probe(binary, never)).toMatchObject({
      version: `${version.slice(1)}.0`,
      kinds: ["Standby", "Stopped"],
    })
    await expect(vmm.probe("/bin/false", never)).rejects.toMatchObject({ code: "hypervisor_unavailable" })
    await expect(vmm.probe("/nowhere", never)).rejects.toMatchObject({ code: "hypervisor_unavailable" })
  },
)

test("a running VM is not saved, and nothing of the try is left", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const target = await place.folder("save")

  await expect(vm.control.save(target, { signal: never })).rejects.toMatchObject({
    code: "hypervisor_failed",
  })

  expect(await readdir(target)).toEqual([])
  expect(await vm.control.state()).toBe("running")
})

test("a directory that holds something is left as it is", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeVmm(place))
  const { dir } = await saveVm(place, vm)
  const config = await readFile(join(dir, "config.json"), "utf8")

  await expect(vm.control.save(dir, { signal: never })).rejects.toMatchObject({ code: "hypervisor_failed" })

  expect((await readdir(dir)).sort()).toEqual(["config.json", "memory-ranges", "state.json"])
  expect(await readFile(join(dir, "config.json"), "utf8")).toBe(config)
})
