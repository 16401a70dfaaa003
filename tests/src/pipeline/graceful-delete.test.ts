import { access, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { expect, test } from "vitest"
import { untilTrue } from "./test-stack.ts"
import { launchOn, stackWith } from "./vmm-stack.ts"

test("a delete with graceful_shutdown presses the power button before it ends the VM", async () => {
  await using stack = await stackWith("cloud-hypervisor")
  const instance = await launchOn(stack, "cloud-hypervisor", "vm")
  const dir = stack.generationDir(instance)
  await writeFile(join(dir, "fault.json"), JSON.stringify({ "vm.power-button": { does: "hold" } }))

  const deleted = stack.ask("DELETE", `/instances/${instance.id}?graceful_shutdown=true`)
  await untilTrue(dir, async () =>
    (await readFile(join(dir, "hanging"), "utf8").catch(() => "")).includes("vm.power-button"),
  )
  expect((await stack.ask("GET", `/instances/${instance.id}`)).status).toBe(200)
  await writeFile(join(dir, "fault.json"), "{}")

  expect((await deleted).status).toBe(204)
  await expect(access(dir)).rejects.toThrow("ENOENT")
})
