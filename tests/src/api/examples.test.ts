import { exampleNames, routeTexts } from "@stillframe/api/openapi/route-texts"
import { compressionHeartbeat } from "@stillframe/db/hosts/compression-workers"
import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { happen, testApi, token, type TestApi } from "./test-api.ts"

interface Operation {
  readonly operationId: string
  readonly parameters: readonly {
    readonly in?: string
    readonly name?: string
    readonly example?: string | number
  }[]
  readonly requestBody?: { readonly content: { readonly "application/json": { readonly example?: object } } }
  readonly responses: Readonly<Record<string, unknown>>
}

/** No worker runs: the result of its work is written where the next example needs it. */
const before: Readonly<Record<string, (api: TestApi) => Promise<unknown>>> = {
  listInstances: (api) => become(api, "Running"),
  listSnapshots: async (api) => asWorker(api).captured(await asWorker(api).take()),
  compressSnapshot: finishWork,
  forkSnapshot: finishWork,
  stopInstance: (api) => become(api, "Running"),
  startInstance: (api) => become(api, "Stopped"),
  standbyInstance: (api) => become(api, "Running"),
  restoreInstance: (api) => become(api, "Standby"),
  restoreInstanceSnapshot: (api) => become(api, "Stopped"),
  listWebhooks: (api) => happen(api, 1),
  listDeliveries: (api) => happen(api, 1),
  deleteSnapshot: finishWork,
  deleteInstance: (api) => become(api, "Running"),
  async forgetHost(api) {
    await finishWork(api)
    // The instance that the example before has deleted.
    await api.db
      .updateTable("instances")
      .set({ deleted_at: new Date() })
      .where("name", "=", "first")
      .execute()
    await api.db
      .updateTable("hosts")
      .set({ heartbeat_at: new Date(0) })
      .where("name", "=", "web-1")
      .execute()
  },
}

async function finishWork({ db }: TestApi): Promise<void> {
  await db.updateTable("operations").set({ state: "done", finished_at: new Date() }).execute()
  await db.updateTable("snapshots").set({ compression_state: "none" }).execute()
}

async function become(api: TestApi, state: "Running" | "Stopped" | "Standby"): Promise<void> {
  await finishWork(api)
  await api.db.updateTable("instances").set({ state }).where("deleted_at", "is", null).execute()
}

test("the documented example of every call, one after the other, has a documented success", async () => {
  await using api = await testApi()
  await api.host("web-1")
  await compressionHeartbeat(api.db, { name: "web-1", pool: "pool-of-web-1", codecs: { zstd: "", lz4: "" } })
  const { paths } = (await api.ask("GET", "/spec.json", { claims: null })).body
  const known = new Map(
    Object.entries<Record<string, Operation>>(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => [
        operation.operationId,
        { path, method, operation },
      ]),
    ),
  )
  expect([...known.keys()].toSorted()).toEqual(Object.keys(routeTexts).toSorted())
  const ids: Record<string, string> = {}

  for (const name of Object.keys(routeTexts)) {
    const { path, method, operation } = known.get(name) as {
      path: string
      method: string
      operation: Operation
    }
    await before[name]?.(api)
    if (name === "getDelivery")
      ids["deliveries/id"] = (await api.ask("GET", `/webhooks/${ids["webhooks/id"]}/deliveries`)).body[0].id
    const { status, made, text } = await send(api, { path, method, operation, ids })
    expect([name, status < 300 && Object.hasOwn(operation.responses, status), text.slice(0, 300)]).toEqual([
      name,
      true,
      expect.any(String),
    ])
    if (name === "createInstanceSnapshot") ids["snapshots/id"] = ids["instances/snapshotId"] = made
    if (name === "createWebhook") ids["webhooks/id"] = made
  }
})

async function send(
  api: TestApi,
  {
    path,
    method,
    operation,
    ids,
  }: { path: string; method: string; operation: Operation; ids: Record<string, string> },
): Promise<{ status: number; made: string; text: string }> {
  const kind = path.split("/")[1]
  const filled = path.replaceAll(/\{(\w+)\}/g, (_match, name: string) => {
    const key = `${kind}/${name}`
    return ids[key] ?? exampleNames[key] ?? ""
  })
  const query = operation.parameters.flatMap(({ in: place, name, example }) =>
    place === "query" && example !== undefined ? [[name ?? "", String(example)] as [string, string]] : [],
  )
  const body = operation.requestBody?.content["application/json"].example
  const over = new AbortController()
  const response = await fetch(`${api.api.url}${filled}?${new URLSearchParams(query).toString()}`, {
    method: method.toUpperCase(),
    signal: over.signal,
    headers: {
      authorization: `Bearer ${token({ sub: "tester" })}`,
      prefer: "respond-async",
      ...(body !== undefined && { "content-type": "application/json" }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const { status } = response
  // A stream has no end of its own.
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") === true
  if (isStream) over.abort()
  const text = isStream ? "" : await response.text()
  return { status, text, made: text.startsWith("{") ? JSON.parse(text).id : "" }
}
