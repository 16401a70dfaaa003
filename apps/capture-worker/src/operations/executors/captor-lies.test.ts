import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createId } from "@stillframe/domain/ids"
import { afterAll, beforeAll, expect, test } from "vitest"
import { messageBytesMax } from "../../executor/orders.ts"
import { openCaptors } from "./captors.ts"

// A captor talks to hypervisors, and one that its guest has taken over may have broken into it.

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-captor-lies-"))
})
afterAll(() => rm(dir, { recursive: true }))

/** A captor that answers each order by what `answer` does with its channel, and lives on. */
async function liar(answer: string): Promise<string> {
  const path = join(dir, `${createId()}.mjs`)
  await writeFile(
    path,
    `import { Socket } from "node:net"
    const channel = new Socket({ fd: 3 }).on("error", () => {}).on("close", () => process.exit())
    channel.once("data", () => { ${answer} })
    setInterval(() => {}, 1_000)`,
  )
  return path
}

const say = (message: unknown): string => `channel.write(${JSON.stringify(`${JSON.stringify(message)}\n`)})`
const tooLong = `channel.write("a".repeat(${messageBytesMax + 1}))`
const endless = `const more = () => channel.write("a".repeat(65_536), more); more()`
const flood = `channel.write('{"progress":0.5}\\n'.repeat(10_000))`

test.for([
  ["a message that is too long", tooLong, `sent a message of more than ${messageBytesMax} bytes`],
  ["a message without an end", endless, `sent a message of more than ${messageBytesMax} bytes`],
  ["a flood of messages", flood, "sent a message that makes no sense"],
  ["no JSON", `channel.write("no JSON\\n")`, "sent a message that makes no sense"],
  ["an unknown message", say({ order: {} }), "sent a message that makes no sense"],
  ["a progress beyond its end", say({ progress: 2 }), "sent a message that makes no sense"],
  ["an error without a code of ours", say({ error: { code: "x", message: "" } }), "makes no sense"],
  ["a result of another kind", say({ result: { pid: 1 } }), "sent a result that makes no sense"],
] as const)("a captor that sends %s is ended, and its order fails", async ([, answer, words]) => {
  await using captors = openCaptors({ program: await liar(answer) })
  let lost = 0

  const given = captors.order(order(), { signal: never, onLost: async () => void lost++ })

  await expect(given).rejects.toMatchObject({
    code: "hypervisor_untrusted",
    message: expect.stringContaining(words),
  })
  expect(lost).toBe(1)
})

test("the words of an error are cut", async () => {
  const words = "a".repeat(100_000)
  const error = { code: "hypervisor_failed", message: words, said: words }
  await using captors = openCaptors({ program: await liar(say({ error })) })

  const given = captors.order(order(), { signal: never, onLost: async () => {} })

  const cut = "a".repeat(2_000)
  await expect(given).rejects.toMatchObject({ code: "hypervisor_failed", message: cut, said: cut })
})

const never = new AbortController().signal

const order = () =>
  ({
    kind: "end",
    remove: "instance",
    clusterId: createId(),
    dataDir: "/nonexistent",
    instanceId: createId(),
    generation: 1,
    operationId: createId(),
    token: createId(),
    leaseMs: 60_000,
  }) as const
