import { once } from "node:events"
import { Agent, request } from "node:http"
import { connect } from "node:net"
import { expect, test } from "vitest"
import { testApi } from "./test-api.ts"

/**
 * Asks for `/health` and keeps the connection. Resolves with the answer's hint and how many connections were
 * opened.
 */
async function ask(agent: Agent, url: string): Promise<{ hint: string | undefined; reused: boolean }> {
  const asked = request(`${url}/health`, { agent }).end()
  const [answer] = (await once(asked, "response")) as [NodeJS.ReadableStream & { headers: object }]
  answer.resume()
  await once(answer, "end")
  const { "keep-alive": hint } = answer.headers as Record<string, string | undefined>
  return { hint, reused: asked.reusedSocket }
}

test("a connection without requests is kept for as long as the setting says", async () => {
  await using api = await testApi({ keepAliveMs: 75_000 })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  try {
    expect(await ask(agent, api.api.url)).toEqual({ hint: "timeout=75", reused: false })
    expect(await ask(agent, api.api.url)).toEqual({ hint: "timeout=75", reused: true })
  } finally {
    agent.destroy()
  }
})

// Less than the 15 s that answers in hand get: there is none.
const endMs = 12_000

test("connections that carry no request do not hold up the end of the API", { timeout: endMs }, async () => {
  const api = await testApi({ keepAliveMs: 75_000 })
  const agent = new Agent({ keepAlive: true })
  await ask(agent, api.api.url)
  const silent = connect(api.api.port, "127.0.0.1")
  silent.on("error", () => silent.destroy())
  await once(silent, "connect")
  // The server has accepted it once it has answered a later one.
  await ask(agent, api.api.url)
  const ended = once(silent, "close")
  silent.resume()

  await api[Symbol.asyncDispose]()

  await ended
  expect(silent.destroyed).toBe(true)
  agent.destroy()
})
