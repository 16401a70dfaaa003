import { once } from "node:events"
import { StillframeError } from "@stillframe/domain/errors"
import { eventChoices } from "@stillframe/domain/events"
import { parseEnv, processEnv } from "@stillframe/runtime/env"
import { Webhook } from "standardwebhooks"
import { z } from "zod"
import { client, RequestError, type Client } from "../demo/client.ts"
import { deliveryLine } from "./delivery-line.ts"
import { startWebhookReceiver, type Delivery, type WebhookReceiver } from "./receiver.ts"

export interface ListenOptions {
  readonly port: string
  /** `whsec_…`; without it the variable's. */
  readonly secret?: string
  /** Makes a webhook for itself and deletes it at the end. */
  readonly create?: boolean
  /** The types of the webhook that it makes; empty: every type. */
  readonly types: readonly string[]
  /** Prints verified bodies instead of lines for people. */
  readonly json?: boolean
}

const portMax = 65_535

/**
 * `webhook listen`: receives on loopback until Ctrl-C, verifies, and prints a line per delivery. Verified
 * ones go to standard output; refused ones too, or with `--json` to standard error.
 */
export async function listen(options: ListenOptions): Promise<void> {
  const stopped = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")])
  try {
    await using resources = new AsyncDisposableStack()
    const port = portOf(options.port)
    const start = options.create === true ? created(options) : withSecret(options)
    const receiver = resources.use(
      await startWebhookReceiver({ port, onDelivery: (delivery) => print(delivery, options) }),
    )
    await start(receiver, resources)
    console.error(`listening on ${receiver.url}; Ctrl-C ends it`)
    await stopped
  } catch (error) {
    const sentence = sentenceOf(error, options)
    if (sentence === undefined) throw error
    console.error(sentence)
    process.exitCode = 1
  }
}

type Begin = (receiver: WebhookReceiver, resources: AsyncDisposableStack) => Promise<void>

function withSecret({ secret: given, types }: ListenOptions): Begin {
  if (types.length > 0) throw wrong("--types is for the webhook that --create makes")
  const { STILLFRAME_WEBHOOK_SECRET } = parseEnv(secretSetting, processEnv())
  const secret = given ?? STILLFRAME_WEBHOOK_SECRET
  if (secret === undefined)
    throw wrong("set STILLFRAME_WEBHOOK_SECRET to the webhook's secret, or give --create to have one made")
  if (!isSecret(secret))
    throw wrong("the secret must be as the API showed it, whsec_ and base64; rotate-secret makes another")
  return async (receiver) => receiver.useSecret(secret)
}

const secretSetting = { STILLFRAME_WEBHOOK_SECRET: z.string().optional() }

function isSecret(text: string): boolean {
  try {
    void new Webhook(text)
    return text.startsWith("whsec_")
  } catch {
    return false
  }
}

function created({ secret, types }: ListenOptions): Begin {
  if (secret !== undefined)
    throw wrong("--create makes a webhook with a secret of its own; leave --secret out")
  const unknown = types.find((type) => !eventChoices.some((known) => known === type))
  if (unknown !== undefined)
    throw wrong(`there is no event type "${unknown}"; use one or more of ${eventChoices.join(", ")}`)
  const api = apiOf()
  return async (receiver, resources) => {
    const body = { url: receiver.url, event_types: types, description: "stillframe webhook listen" }
    const { id, secret } = await api.request<{ id: string; secret: string }>("POST", "/webhooks", body)
    resources.defer(() => api.request("DELETE", `/webhooks/${id}`))
    receiver.useSecret(secret)
  }
}

const apiSettings = {
  STILLFRAME_URL: z.url({ protocol: /^https?$/ }).default("http://127.0.0.1:8080"),
  STILLFRAME_TOKEN: z
    .string({
      error: "must be a token, as the file `token` in DATA_DIR holds one or `stillframe token` prints",
    })
    .transform((text) => text.trim()),
}

function apiOf(): Client {
  const { STILLFRAME_URL, STILLFRAME_TOKEN } = parseEnv(apiSettings, processEnv())
  return client({ url: STILLFRAME_URL, token: STILLFRAME_TOKEN })
}

function portOf(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) <= portMax) return Number(text)
  throw wrong(`--port ${text} must be a whole number from 0, any free one, to ${portMax}`)
}

function print(delivery: Delivery, { json = false }: ListenOptions): void {
  if (json && "event" in delivery) console.log(JSON.stringify(delivery.event))
  else if (json) console.error(deliveryLine(delivery, new Date()))
  else console.log(deliveryLine(delivery, new Date()))
}

function sentenceOf(error: unknown, { port }: ListenOptions): string | undefined {
  if (error instanceof StillframeError || error instanceof RequestError) return error.message
  const { code, syscall } = error as NodeJS.ErrnoException
  if (syscall !== "listen") return undefined
  return code === "EADDRINUSE" ? `port ${port} is in use; name another with --port` : (error as Error).message
}

function wrong(message: string): StillframeError {
  return new StillframeError("invalid_request", message)
}
