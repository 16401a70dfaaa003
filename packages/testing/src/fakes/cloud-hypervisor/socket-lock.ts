import { once } from "node:events"
import { rmSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"

/** Since v53 a lock file says whose a socket is, and one that a dead process left is removed. */
export async function lockSocket(socket: string): Promise<void> {
  const file = `${socket}.lock`
  writeFileSync(file, "", { flag: "a" })
  const { dev, ino } = statSync(file)
  await holdName(`socket/${dev}/${ino}`)
  rmSync(socket, { force: true })
}

/**
 * Node has no file locks; a name in the kernel goes with its process just like one. Rejects when another
 * holds it.
 */
export async function holdName(name: string): Promise<() => void> {
  const server = createServer().listen(`\0stillframe-fake/${name}`)
  await once(server, "listening")
  return () => void server.close()
}
