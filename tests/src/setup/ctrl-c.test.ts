import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdir, readFile, readlink, rm } from "node:fs/promises"
import { delimiter, dirname, join } from "node:path"
import { createInterface } from "node:readline"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { client, type Client } from "@stillframe/stillframe/demo/client"
import { scratchFolder } from "@stillframe/testing/scratch"
import { expect, test } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"

const main = join(import.meta.dirname, "..", "..", "..", "apps", "stillframe", "main.mjs")

test("Ctrl-C of the whole process group in a capture ends everything in order and warns of nothing", async () => {
  await using opened = new AsyncDisposableStack()
  const dir = await scratchFolder("stillframe-ctrl-c-")
  opened.defer(() => rm(dir, { recursive: true }))
  // The VM goes on by design, and works in its directory below this one.
  opened.defer(() => endProcessesOf(dir))
  const stack = await startStack(opened, dir)
  const launch = { name: "a", image: "heartbeat", memory: "512MB" }
  const { id: instance } = await stack.api.request<InstanceResource>("POST", "/instances", launch)
  const { id } = await stack.api.request<SnapshotResource>("POST", `/instances/${instance}/snapshots`, {
    kind: "Standby",
  })
  await expect.poll(() => statusOf(stack.api, id)).not.toBe("queued")

  process.kill(-stack.pid, "SIGINT")

  expect(await stack.ended).toEqual([0, null])
  expect(stack.lines.filter(({ level }) => level !== "info")).toEqual([])
}, 120_000)

async function statusOf(api: Client, id: string): Promise<string> {
  return (await api.request<SnapshotResource>("GET", `/snapshots/${id}`)).status
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL")
  } catch (error) {
    // It ended by itself meanwhile.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
  }
}

async function endProcessesOf(dir: string): Promise<void> {
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const at = await readlink(`/proc/${pid}/cwd`).catch(() => "")
    if (at.startsWith(`${dir}/`)) endProcess(Number(pid))
  }
}

interface Line {
  readonly level: string
  readonly msg: string
  readonly url?: string
}

/** `npm start`'s own program, in a process group of its own. */
async function startStack(opened: AsyncDisposableStack, dir: string) {
  const env = {
    PATH: [process.env["PATH"], dirname(qemu.binary)].join(delimiter),
    NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"],
    DATA_DIR: dir,
    PORT: "0",
    QEMU_BINARY: qemu.binary,
    QEMU_IMG: qemu.qemuImg,
    QEMU_ACCELERATOR: "tcg",
  }
  const child = spawn(process.execPath, [main, "start"], {
    env,
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
  })
  const ended = once(child, "close")
  opened.defer(async () => {
    child.kill("SIGKILL")
    await ended
  })
  const lines: Line[] = []
  createInterface(child.stderr).on("line", (line) => lines.push(JSON.parse(line) as Line))
  await expect.poll(() => lines.map(({ msg }) => msg), { timeout: 50_000 }).toContain("started")
  const url = lines.find((line) => line.url !== undefined)?.url ?? ""
  const token = await readFile(join(dir, "token"), "utf8")
  return { pid: child.pid ?? 0, ended, lines, api: client({ url, token }) }
}
