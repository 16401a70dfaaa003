import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, realpath, rename, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { openHomeVms } from "./home-vms.ts"

test("a VM that was seen in its directory counts for as long as it lives, also while the directory is away", async () => {
  await using opened = new AsyncDisposableStack()
  const root = await realpath(await mkdtemp(join(tmpdir(), "stillframe-vms-")))
  opened.defer(() => rm(root, { recursive: true }))
  const generation = join(root, "data", "instances", "one", "1")
  await mkdir(generation, { recursive: true })
  const vm = spawn("sleep", ["600"], { cwd: generation, stdio: "ignore" })
  const ended = once(vm, "exit")
  opened.defer(async () => {
    vm.kill("SIGKILL")
    await ended
  })
  await once(vm, "spawn")
  const vms = openHomeVms()
  expect(await vms.anyLives()).toBe(false)

  await vms.look([generation])
  await rename(join(root, "data"), join(root, "away"))
  await vms.look([])

  expect(await vms.anyLives()).toBe(true)
  vm.kill("SIGKILL")
  await ended
  expect(await vms.anyLives()).toBe(false)
})
