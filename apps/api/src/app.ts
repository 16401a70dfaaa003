import { StillframeError } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import { isConnectionLoss } from "@stillframe/domain/postgres/connection-loss"
import type { Scope } from "@stillframe/domain/scopes"
import type { Logger } from "@stillframe/runtime/logger"
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Response,
} from "express"
import helmet from "helmet"
import { authenticator, type Bearer } from "./access/auth.ts"
import { bearerOf, limitRates } from "./access/limit-rates.ts"
import { capabilityRoutes } from "./capabilities.ts"
import { eventRoutes } from "./events/events.ts"
import { eventStreamRoutes } from "./events/stream-route.ts"
import { healthRoutes, startingMessage } from "./health/health.ts"
import { hostRoutes } from "./hosts/hosts.ts"
import type { ApiDeps } from "./http/deps.ts"
import { readInput } from "./http/input/read-input.ts"
import { validateBody, validateQuery } from "./http/input/validate.ts"
import { handleOnce } from "./http/once.ts"
import { appliedPreference, parsePrefer } from "./http/prefer.ts"
import { problem, thrownProblem } from "./http/problem.ts"
import { refuseWhenFull } from "./http/refuse-when-full.ts"
import { identifyRequest } from "./http/request-identity.ts"
import type { Answer, Route } from "./http/route.ts"
import { instanceActionRoutes } from "./instances/actions.ts"
import { instanceRoutes } from "./instances/instances.ts"
import { instanceWaitRoutes } from "./instances/wait.ts"
import { mountReference } from "./openapi/reference.ts"
import { forkRoutes } from "./snapshots/fork.ts"
import { restoreRoutes } from "./snapshots/restore.ts"
import { snapshotRoutes } from "./snapshots/snapshots.ts"
import { snapshotWorkRoutes } from "./snapshots/work.ts"
import { webhookActionRoutes } from "./webhooks/actions.ts"
import { deliveryRoutes } from "./webhooks/deliveries.ts"
import { webhookRecoveryRoutes } from "./webhooks/recovery.ts"
import { webhookRoutes } from "./webhooks/webhooks.ts"

/** The whole API as one Express app; it opens nothing and listens nowhere. */
export function createApp(deps: ApiDeps): Express {
  const app = express()
  // The query is parsed by us; `/snapshots/` is no route, and no answer is a 304.
  app
    .set("query parser", false)
    .set("strict routing", true)
    .set("case sensitive routing", true)
    .set("etag", false)
    .set("trust proxy", [...(deps.trustedProxies ?? [])])
  app.use(identify(deps.log), helmet(), refuseWhileStarting(deps))
  const refuse = (res: Response, answer: Answer): void => send(res, answer, deps)
  app.use(limitRates(deps, { authenticate: authenticator(deps.jwtSecret, deps.tokenRules), refuse }))
  const routes = routesOf(deps)
  mount(app, deps, routes)
  mountReference(app, routes)
  app.use(() => {
    throw new StillframeError("route_not_found", "no matching operation was found")
  })
  app.use(answerThrown(deps))
  return app
}

function refuseWhileStarting(deps: ApiDeps): RequestHandler {
  return (req, res, next) => {
    if (!deps.starting() || openWhileStarting.has(req.path)) next()
    else send(res, problem("unavailable", startingMessage, { retryAfterMs: startingRetryMs }), deps)
  }
}

const openWhileStarting = new Set(["/health", "/ready"])
const startingRetryMs = 1_000

function routesOf(deps: ApiDeps): Route[] {
  return [
    ...healthRoutes(deps),
    ...capabilityRoutes(deps),
    ...hostRoutes(deps),
    ...instanceRoutes(deps),
    ...instanceActionRoutes(deps),
    ...instanceWaitRoutes(deps),
    ...snapshotRoutes(deps),
    ...snapshotWorkRoutes(deps),
    ...forkRoutes(deps),
    ...restoreRoutes(deps),
    ...webhookRoutes(deps),
    ...webhookActionRoutes(deps),
    ...webhookRecoveryRoutes(deps),
    ...deliveryRoutes(deps),
    ...eventRoutes(deps),
    ...eventStreamRoutes(deps),
  ]
}

function mount(app: Express, deps: ApiDeps, routes: readonly Route[]): void {
  for (const [path, ofPath] of Map.groupBy(routes, (route) => route.path)) {
    const target = app.route(path)
    for (const route of ofPath) target[route.method](judge(route, deps))
    const allowed = ofPath.map(({ method }) => method.toUpperCase()).join(", ")
    target.all((_req, res) => {
      res.set("Allow", allowed)
      throw new StillframeError("method_not_allowed", "method not allowed")
    })
  }
}

/** The contract's order of judgement: token, schema, scope, and only then the handler with what it finds. */
function judge(route: Route, deps: ApiDeps): RequestHandler {
  return async (req, res) => {
    const bearer = route.scope === undefined ? undefined : bearerOf(res)
    const given = await readInput(route, req, res)
    const query = route.query === undefined ? {} : validateQuery(route.query, given.query)
    const body = route.body === undefined ? undefined : validateBody(route.body, given.body)
    assertAllowed(route, bearer, body)
    refuseWhenFull(route, deps)
    const gone = new AbortController()
    // Not after every answer: an abort makes an error with its stack.
    res.once("close", () => {
      if (!res.writableFinished) gone.abort()
    })
    const params = req.params as Record<string, string>
    const prefer = parsePrefer(req.get("prefer"))
    const caller = bearer?.caller ?? ""
    const identity = identifyRequest({
      method: req.method,
      path: req.path,
      key: route.replay === undefined ? undefined : req.get("idempotency-key"),
      retryCount: req.get("x-stainless-retry-count"),
      caller,
      body,
    })
    const answer = await handleOnce(deps, route, {
      url: req.url,
      params,
      query,
      body,
      prefer,
      identity,
      caller,
      lastEventId: req.get("last-event-id"),
      allows: (scope) => bearer?.allows(scope) === true,
      expiresInMs: bearer?.expiresInMs() ?? Infinity,
      onRevoked: (listener) => bearer?.onRevoked(listener) ?? (() => {}),
      signal: gone.signal,
    })
    const applied = route.holds === true ? appliedPreference(prefer) : undefined
    if (applied !== undefined) res.set("Preference-Applied", applied)
    send(res, answer, deps)
  }
}

function assertAllowed(route: Route, bearer: Bearer | undefined, body: unknown): void {
  const { scope, narrowerScope, alsoScope } = route
  const allows = (each: Scope | undefined): boolean => each !== undefined && bearer?.allows(each) === true
  const missing = (each: Scope): StillframeError =>
    new StillframeError("forbidden", `missing required scope: ${each}`)
  if (scope !== undefined && !allows(scope) && !allows(narrowerScope)) throw missing(scope)
  if (alsoScope !== undefined && alsoScope.when?.(body) !== false && !allows(alsoScope.scope))
    throw missing(alsoScope.scope)
}

function send(
  res: Response,
  { status, body, json, headers = {}, stream, onSent }: Answer,
  { stopping }: ApiDeps,
): void {
  if (onSent !== undefined) res.once("finish", onSent)
  // A connection kept alive would hold up the end of the process.
  if (stopping.aborted) res.set("Connection", "close")
  if (stream !== undefined) {
    res.writeHead(status, headers)
    // Express asks GET's handler.
    if (res.req.method === "HEAD") res.end()
    else stream(res)
    return
  }
  res.status(status).set(headers)
  if (json !== undefined) res.type("application/json").send(json)
  else if (body === undefined) res.end()
  else res.json(body)
}

/** Each request has an id: the caller's if it is a plain one, in the answer and in every line of the log. */
function identify(log: Logger): RequestHandler {
  return (req, res, next) => {
    const given = req.get("x-request-id") ?? ""
    const requestId = requestIdPattern.test(given) ? given : createId()
    res.set("X-Request-Id", requestId)
    res.locals["log"] = log.child({ requestId })
    // Express would answer `If-None-Match: *` with a 304 that has no body; only the page's files have a
    // validator.
    if (!req.path.startsWith("/docs/")) delete req.headers["if-none-match"]
    const started = performance.now()
    res.once("close", () => {
      const durationMs = Math.round(performance.now() - started)
      const { statusCode: status, writableFinished: answered } = res
      requestLog(res).info({ method: req.method, path: req.path, status, answered, durationMs }, "request")
    })
    next()
  }
}

const requestIdPattern = /^[A-Za-z0-9._:-]{1,128}$/

function requestLog(res: Response): Logger {
  return res.locals["log"] as Logger
}

function answerThrown(deps: ApiDeps): ErrorRequestHandler {
  // Express knows an error handler by its four parameters.
  return (thrown: unknown, _req: Request, res: Response, _next) => {
    // The client has gone: there is nobody to answer.
    if (res.closed) return
    const error = thrownProblem(thrown)
    // Ours are answers; anything else is a fault, whatever it is answered with.
    const answer = problem(error.code, error.message)
    const isNews = error !== thrown && answer.status >= 500 && !isConnectionLoss(thrown)
    if (error.code === "internal_error" || isNews) requestLog(res).error({ err: thrown }, "request failed")
    send(res, answer, deps)
  }
}
