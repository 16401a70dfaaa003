import { rename, rm } from "node:fs/promises"
import { connect, createServer, type Socket } from "node:net"
import { join } from "node:path"
import type { Step, Wire } from "./subject.ts"

/** A request that was stopped on its way, for a test to decide on. */
export interface Request {
  /** Hands it on, and what the VM says back. */
  pass(): void
  /** Hands it on, and ends the connection where the answer would come. */
  passUnanswered(): void
  refuse(): void
  /** Ends the connection. */
  cut(): void
}

/** Sits between a VM and whoever speaks to it. */
export interface Wiretap extends AsyncDisposable {
  /** What becomes of the next so many requests of a step; all of them without a number. */
  at(step: Step, act: (request: Request) => void | Promise<void>, times?: number): void
  /** How many requests of a step are still to be acted on. */
  left(step: Step): number
  /** Resolves when the next request comes, whatever it asks. */
  next(): Promise<void>
  /** The socket is gone, and every connection with it, until `back`. */
  away(): Promise<void>
  back(): Promise<void>
}

interface Rule {
  readonly act: (request: Request) => void | Promise<void>
  left: number
}

/** Takes the place of a VM's socket; a request is one write, as our clients send it. */
export async function wiretap(dir: string, wire: Wire): Promise<Wiretap> {
  const { steps } = wire
  const path = join(dir, wire.socket)
  const tapped = `${path}.tapped`
  const rules = new Map<Step, Rule>()
  const connections = new Set<Socket>()
  let coming = Promise.withResolvers<void>()

  function onConnection(client: Socket): void {
    const vm = connect(tapped)
    let answered = true
    for (const [one, other] of [
      [client, vm],
      [vm, client],
    ] as const) {
      connections.add(one)
      one.on("error", () => {})
      one.on("close", () => {
        connections.delete(one)
        other.destroy()
      })
    }
    vm.on("data", (bytes) => (answered ? void client.write(bytes) : client.destroy()))
    client.on("data", (bytes) => {
      const text = bytes.toString("utf8")
      coming.resolve()
      coming = Promise.withResolvers<void>()
      const rule = ruleFor(text)
      if (rule === undefined) return void vm.write(bytes)
      void rule.act({
        pass: () => void vm.write(bytes),
        passUnanswered: () => {
          answered = false
          vm.write(bytes)
        },
        refuse: () => void client.write(wire.refusal(text)),
        cut: () => void client.destroy(),
      })
    })
  }

  function ruleFor(text: string): Rule | undefined {
    const step = (Object.keys(steps) as Step[]).find((name) => steps[name].test(text))
    if (step === undefined) return undefined
    const rule = rules.get(step)
    if (rule === undefined || rule.left === 0) return undefined
    rule.left -= 1
    return rule
  }

  let server: ReturnType<typeof createServer> | undefined
  const away = async (): Promise<void> => {
    for (const connection of connections) connection.destroy()
    server?.close()
    server = undefined
    await rm(path, { force: true })
  }
  const back = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>()
    server = createServer(onConnection).listen(path, resolve)
    await promise
  }

  await rename(path, tapped)
  await back()
  return {
    at: (step, act, times = Infinity) => void rules.set(step, { act, left: times }),
    left: (step) => rules.get(step)?.left ?? 0,
    next: () => coming.promise,
    away,
    back,
    async [Symbol.asyncDispose]() {
      await away()
      await rename(tapped, path).catch(() => {
        // Some processes remove it when they end.
      })
    },
  }
}
