import { expect, test } from "vitest"
import { testApi } from "./test-api.ts"

const body = { name: "vm", attach: { control_socket: "/run/vm.sock" } }
const manages = { permissions: ["instance:write"] }
const attaches = { permissions: ["instance:write", "host:attach"] }

test("to attach takes a scope of its own beside the one to launch", async () => {
  await using api = await testApi()
  await api.host("h1")

  const refused = await api.ask("POST", "/instances", { body, claims: manages })
  expect(refused.status).toBe(403)
  expect(refused.body["message"]).toBe("missing required scope: host:attach")
  const alone = await api.ask("POST", "/instances", { body, claims: { permissions: ["host:attach"] } })
  expect(alone.body["message"]).toBe("missing required scope: instance:write")
  const allowed = await api.ask("POST", "/instances", {
    body,
    claims: attaches,
    headers: { prefer: "respond-async" },
  })
  expect(allowed.status).not.toBe(403)
  const launch = { name: "vm", image: "nonsense" }
  expect((await api.ask("POST", "/instances", { body: launch, claims: manages })).status).toBe(400)
})

test.each([
  ["launch", { image: "demo" }],
  ["image", "demo"],
  ["vcpus", 1],
  ["size", "1GB"],
])("an attached VM is taken as it runs: no %s beside attach", async (member, value) => {
  await using api = await testApi()
  await api.host("h1")

  const reply = await api.ask("POST", "/instances", { body: { ...body, [member]: value } })

  expect(reply.status).toBe(400)
  expect(reply.body["message"]).toContain(`"${member}"`)
})

test.each([
  {},
  { control_socket: "run/vm.sock" },
  { control_socket: "/run/vm.sock,server=on" },
  { control_socket: "/run/vm.sock", pid: 0 },
  { control_socket: "/run/vm.sock", pid: "1" },
  { control_socket: "/run/vm.sock", allow_overlay: "yes" },
])("%j names no VM to attach to", async (attach) => {
  await using api = await testApi()
  await api.host("h1")

  const reply = await api.ask("POST", "/instances", { body: { name: "vm", attach } })

  expect(reply.status).toBe(400)
  expect(reply.body["message"]).toContain("/attach")
})

test("what is to be attached to is stored for the host's worker, and shown as attached", async () => {
  await using api = await testApi()
  await api.host("h1")

  const reply = await api.ask("POST", "/instances", { body, headers: { prefer: "respond-async" } })

  expect(reply.status).toBe(202)
  expect(reply.body).toMatchObject({ name: "vm", attached: true, state: "Initializing", vcpus: 0 })
  const { attached } = await api.db.selectFrom("instances").select("attached").executeTakeFirstOrThrow()
  expect(attached).toEqual(body.attach)
})
