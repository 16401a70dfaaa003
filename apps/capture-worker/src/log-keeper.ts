import { realpath } from "node:fs/promises"
import { createConnection, createServer } from "node:net"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { boundLogs } from "@stillframe/hypervisors/bounded-log"
import { directoriesAtWork } from "@stillframe/hypervisors/processes"
import { namesIn } from "@stillframe/storage/directory"
import { logKeeperSocket } from "./log-keepers.ts"

// The process that bounds what VMs write to their logs: a child of the capture-worker with a session of its own, because VMs
// outlive their worker. Without one it goes on while any VM of this host lives, or until the next worker's keeper comes.
const roundMs = 1_000
const retryMs = 100
const [dataDir = "", bytes = ""] = process.argv.slice(2)
// Ctrl-C in a terminal reaches every process of its group.
process.on("SIGINT", () => {})

await takeTurn()
for (;;) {
  try {
    for (const dir of await generations()) await boundLogs(dir, Number(bytes))
    if (!process.connected && !(await anyVmLives())) break
  } catch (error) {
    // The next round tries again: no other process bounds them.
    if (process.connected) process.send?.({ reason: String(error) }, undefined, {}, () => {})
  }
  await delay(roundMs)
}
process.exit(0)

/** By their real paths, as the kernel names the working directories of VMs. */
async function generations(): Promise<string[]> {
  // A host without the directory has launched no VM yet.
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

async function anyVmLives(): Promise<boolean> {
  const dirs = new Set(await generations())
  return dirs.size > 0 && (await directoriesAtWork()).some((dir) => dirs.has(dir))
}

/** One keeper at a time: one whose worker has gone makes way for the next. */
async function takeTurn(): Promise<void> {
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
    await delay(retryMs)
  }
}
