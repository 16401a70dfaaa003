import { once } from "node:events"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import type { OwnedDatabase } from "@stillframe/db/client"
import { openMigrated, type OpenedDatabase } from "@stillframe/db/open"
import { StillframeError } from "@stillframe/domain/errors"
import type { Logger } from "@stillframe/runtime/logger"
import { shutdownDeadlineMs } from "@stillframe/runtime/process"
import { portsOf, type AddressRules } from "@stillframe/runtime/webhook-addresses"
import type { TokenRules } from "./access/auth.ts"
import { openEndlessTokens } from "./access/endless-tokens.ts"
import { openRevokedTokens } from "./access/revoked-tokens.ts"
import { createApp } from "./app.ts"
import type { ApiConfig } from "./config.ts"
import { openEventTail } from "./events/tail.ts"
import { openAnswered } from "./http/answered.ts"
import { silentConnections, timeouts } from "./http/connections.ts"
import { refuseUnreadable } from "./http/refuse-unreadable.ts"
import { captureLimits } from "./snapshots/capture-limits.ts"
import { resolveInTime } from "./webhooks/url.ts"

export interface RunningApi extends AsyncDisposable {
  readonly url: string
  readonly port: number
}

/** Running requests get this part of the shutdown; the rest is for the connections below them. */
const answersDeadlineMs = shutdownDeadlineMs - 5_000

export interface StartApiOptions {
  /**
   * Until it resolves, calls are refused as something to be tried again: what they need is still starting.
   */
  readonly ready?: Promise<void>
  /** The one to share; without it the API opens its own. */
  readonly database?: OpenedDatabase
}

/**
 * Brings the schema up to date, opens the pool and listens. Disposing it stops accepting, ends every held
 * answer as if its time had run out, and waits for the answers in hand.
 */
export async function startApi(
  config: ApiConfig,
  log: Logger,
  { ready, database }: StartApiOptions = {},
): Promise<RunningApi> {
  await using opened = new AsyncDisposableStack()
  const { db, waker } = await openMigrated(opened, { ...config, log }, database)
  const tokenRules = await openTokenRules(opened, { config, db, log })
  const stopping = new AbortController()
  const answered = opened.use(openAnswered(db, log))
  let starting = ready !== undefined
  const admitCapture = captureLimits(db, config.openCaptures)
  const own = {
    db,
    waker,
    tokenRules,
    log,
    admitCapture,
    stopping: stopping.signal,
    starting: () => starting,
  }
  const server = createServer(timeouts(config))
  const webhooks = { resolve: resolveInTime, webhookRules: () => webhookRules(config, server) }
  server.on("request", createApp({ ...webhooks, ...config, ...own, answered, eventTail: openEventTail(own) }))
  server.on("clientError", refuseUnreadable)
  const closeSilent = silentConnections(server)
  server.listen(config.port, config.listenHost)
  await once(server, "listening").catch((cause: Error) => {
    const message = `can't listen: ${cause.message}; set PORT and LISTEN_HOST to an address that is free`
    throw new StillframeError("unavailable", message, { cause })
  })
  opened.defer(() => closeServer(server, stopping, closeSilent))
  const { port } = server.address() as AddressInfo
  const url = `http://${config.listenHost.includes(":") ? `[${config.listenHost}]` : config.listenHost}:${port}`
  const serve = (): void => {
    starting = false
    log.info({ url }, "listening")
  }
  if (ready === undefined) serve()
  else void ready.then(serve)
  const resources = opened.move()
  return { url, port, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

async function openTokenRules(
  opened: AsyncDisposableStack,
  { config, db, log }: { config: ApiConfig; db: OwnedDatabase; log: Logger },
): Promise<TokenRules> {
  const file = config.jwtRevokedFile
  const revoked = file === undefined ? undefined : opened.use(await openRevokedTokens(file, log))
  const endless = opened.use(await openEndlessTokens(db, log))
  return {
    previousSecret: config.jwtSecretPrevious,
    requireExp: config.jwtRequireExp,
    isRevoked: (id) => revoked?.has(id) === true,
    onRevocations: (listener) => revoked?.listen(listener) ?? (() => {}),
    onEndless: (tokenHash) => endless.note(tokenHash),
  }
}

function webhookRules(config: ApiConfig, server: Server): AddressRules {
  const { port } = server.address() as AddressInfo
  const stackPorts = [port, ...portsOf([config.databaseUrl, config.databaseDirectUrl])]
  return { allowedCidrs: config.webhookAllowedCidrs, stackPorts }
}

async function closeServer(
  server: Server,
  stopping: AbortController,
  closeSilent: () => void,
): Promise<void> {
  const closed = once(server, "close")
  server.close()
  closeSilent()
  stopping.abort()
  const deadline = setTimeout(() => server.closeAllConnections(), answersDeadlineMs)
  await closed
  clearTimeout(deadline)
}
