import { readFile, realpath } from "node:fs/promises"
import { createConnection, createServer } from "node:net"
import { basename, join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { boundLogs } from "@stillframe/hypervisors/process/bounded-log"
import { holdersOf } from "@stillframe/hypervisors/process/unix-sockets"
import { namesIn } from "@stillframe/storage/directory"
import { openHomeVms } from "./home-vms.ts"
import { logKeeperSocket, type KeeperWord } from "./log-keepers.ts"

// The process that bounds what VMs write to their logs: a child of the capture-worker with a session of its
// own, because VMs outlive their worker. Without one it goes on while any VM of this host lives, or until the
// next worker's keeper comes.
const roundMs = 1_000
const retryMs = 100
/** Under a worker, which keeps this process by itself; without one the VMs are looked for in each round. */
const roundsPerLook = 10
const [, program = "", dataDir = "", bytes = "", patienceMs = ""] = process.argv
let toldAt = -Infinity
// Ctrl-C in a terminal reaches every process of its group.
process.on("SIGINT", () => {})

await takeTurn()
const vms = openHomeVms()
for (let round = 0; ; round += 1) {
  // Empty too while DATA_DIR is away: VMs that are known keep this process until it is back.
  const dirs = await generations().catch(tellTrouble)
  await bound(dirs ?? [])
  if (!process.connected || round % roundsPerLook === 0) await vms.look(dirs ?? [])
  if (!process.connected && !(await vms.anyLives())) break
  await delay(roundMs)
}
process.exit(0)

async function bound(dirs: readonly string[]): Promise<void> {
  tellProgress()
  for (const dir of dirs) {
    await boundLogs(dir, Number(bytes)).catch(tellTrouble)
    tellProgress()
  }
}

/** The worker ends a keeper that it hears nothing of. */
function tellProgress(): void {
  if (performance.now() < toldAt + roundMs / 2) return
  toldAt = performance.now()
  tell({ kind: "progress" })
}

/** The next round tries again: no other process bounds them. */
function tellTrouble(error: unknown): undefined {
  tell({ kind: "trouble", reason: String(error) })
}

function tell(word: KeeperWord): void {
  // A worker that has just ended hears nothing, and its keeper goes on.
  if (process.connected) process.send?.(word, undefined, {}, () => {})
}

/** By their real paths, as the kernel names the working directories of VMs. */
async function generations(): Promise<string[]> {
  // A host without the directory has launched no VM yet, or its disk is away.
  const instances = await realpath(join(dataDir, "instances")).catch(() => undefined)
  if (instances === undefined) return []
  const found = await Promise.all(
    (await namesIn(instances)).map(async (id) =>
      (await namesIn(join(instances, id)))
        .filter((name) => /^\d+$/.test(name))
        .map((name) => join(instances, id, name)),
    ),
  )
  return found.flat()
}

/** One keeper at a time: one whose worker has gone makes way for the next, and is ended if it hangs. */
async function takeTurn(): Promise<void> {
  const impatientAt = performance.now() + Number(patienceMs)
  for (;;) {
    const server = createServer((socket) => {
      socket.destroy()
      if (!process.connected) process.exit(0)
    })
    const taken = Promise.withResolvers<boolean>()
    server.once("listening", () => taken.resolve(true)).once("error", () => taken.resolve(false))
    server.listen({ path: logKeeperSocket(dataDir) })
    if (await taken.promise) return
    createConnection({ path: logKeeperSocket(dataDir) }).on("error", () => {})
    if (!process.connected) process.exit(0)
    tellProgress()
    if (performance.now() > impatientAt) await endHungKeepers().catch(tellTrouble)
    await delay(retryMs)
  }
}

async function endHungKeepers(): Promise<void> {
  for (const pid of await holdersOf(logKeeperSocket(dataDir))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0")
    if (!words.includes(dataDir) || !words.some((word) => basename(word) === basename(program))) continue
    process.kill(pid, "SIGKILL")
    tell({
      kind: "trouble",
      reason: `the log keeper of an earlier worker, process ${pid}, hung; it was ended`,
    })
  }
}
