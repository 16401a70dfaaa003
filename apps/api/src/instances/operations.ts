import { setTimeout } from "node:timers/promises"
import { type InstanceRow } from "@stillframe/db/instances/instances"
import { findShownInstance } from "@stillframe/db/instances/shown"
import { getOperation, type OperationView } from "@stillframe/db/operations/operations"
import type { Made } from "@stillframe/db/snapshots/idempotency"
import { instanceResource } from "@stillframe/domain/instance"
import type { OperationKind } from "@stillframe/domain/operation"
import type { ApiDeps } from "../http/deps.ts"
import { heldMs, waitSecondsMax } from "../http/prefer.ts"
import { failedWork, problem } from "../http/problem.ts"
import type { Answer, Call } from "../http/route.ts"
import { waitUntil } from "../http/wait.ts"

/**
 * How an operation ended; undefined when it has not within `timeoutMs`, or when no worker is up that could
 * end it.
 */
export async function waitForEnd(
  deps: ApiDeps,
  operationId: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<OperationView | undefined> {
  const last = await waitUntil(
    deps,
    async () => {
      const operation = await getOperation(deps.db, operationId)
      return isOpen(operation) && operation.attended ? undefined : operation
    },
    options,
  )
  return last === undefined || isOpen(last) ? undefined : last
}

function isOpen({ state }: OperationView): boolean {
  return state === "queued" || state === "running"
}

/** Work on an instance that an answer may be held for. */
export type InstanceWork = Made & {
  readonly made: { readonly instanceId: string; readonly operationId: string }
}

export function instanceWork(instance: InstanceRow, operationId: string): InstanceWork {
  return { made: { instanceId: instance.id, operationId }, body: instanceResource(instance) }
}

/**
 * The answer of work on an instance: `status` with the instance once it is done, what it failed of, or 202
 * when the time is up. Where answers are results, that last one is a 504, which the client is not to repeat:
 * the work goes on.
 */
export async function answerWithInstance(
  deps: ApiDeps,
  { made: { instanceId, operationId }, body }: InstanceWork,
  options: { timeoutMs: number; signal: AbortSignal; status: 200 | 201 },
): Promise<Answer> {
  const headers = { Location: `/instances/${instanceId}` }
  const held = options.timeoutMs > 0
  const end = held ? await waitForEnd(deps, operationId, options) : undefined
  if (end !== undefined && end.state !== "done") return failedWork(end)
  const warning = end === undefined ? warningOf(await lookedAt(deps, operationId)) : {}
  const instance = await findShownInstance(deps.db, instanceId)
  const resource = instance === undefined ? body : instanceResource(instance)
  if (end === undefined)
    return workGoesOn(deps, { body: resource, headers: { ...headers, ...warning }, held })
  if (instance !== undefined)
    return { status: options.status, body: resource, headers: { ...headers, ...warningOf(end) } }
  return problem("conflict", "the instance was deleted before this answer was given", { retry: false })
}

/**
 * Answers a request that was sent again as the first one would be now, also where it may not wait: work that
 * is done or has failed is not shown as under way. An instance that is gone is shown as the first answer
 * showed it.
 */
export function replayInstanceWork(
  deps: ApiDeps,
  status: 200 | 201,
): (call: Call<unknown, unknown>, kept: Made) => Promise<Answer> {
  return async ({ prefer, signal }, { made: { instanceId = "", operationId = "" }, body }) => {
    const timeoutMs = heldMs(prefer, { seconds: waitSecondsMax })
    const end = await waitForEnd(deps, operationId, { timeoutMs, signal })
    const instance = await findShownInstance(deps.db, instanceId)
    const resource = instance === undefined ? body : instanceResource(instance)
    const headers = { Location: `/instances/${instanceId}` }
    if (end === undefined) {
      const warning = warningOf(await getOperation(deps.db, operationId))
      return workGoesOn(deps, { body: resource, headers: { ...headers, ...warning }, held: timeoutMs > 0 })
    }
    if (end.state !== "done") return failedWork(end)
    return { status, body: resource, headers: { ...headers, ...warningOf(end) } }
  }
}

/** Long enough for a host that has nothing else to do. */
const lookMsMax = 250
const lookEveryMs = 10
/** Work that gives a VM disks which may grow. */
const warningKinds: ReadonlySet<OperationKind> = new Set(["launch", "fork", "start", "restore"])

/**
 * The operation once its host has looked at it, or as it is when that takes too long for an answer that may
 * not be held.
 */
async function lookedAt(
  { db, hostLookMs = lookMsMax }: ApiDeps,
  operationId: string,
): Promise<OperationView> {
  const deadline = performance.now() + hostLookMs
  for (;;) {
    const operation = await getOperation(db, operationId)
    const { kind, attended, error_message: noted } = operation
    const awaited = warningKinds.has(kind) && isOpen(operation) && attended && noted === null
    if (!awaited || performance.now() > deadline) return operation
    await setTimeout(lookEveryMs)
  }
}

/** The header `X-Warning`: work that may yet lead to trouble. */
function warningOf({ state, error_message: warning }: OperationView): Record<string, string> {
  const isReason = state === "failed" || state === "cancelled"
  return warning === null || warning === "" || isReason ? {} : { "X-Warning": warning }
}

/**
 * 202 with the resource as it is now; where answers are results, and this one was held, a 504 that is not to
 * be repeated.
 */
export function workGoesOn(
  { snapshotCreate }: ApiDeps,
  { body, headers, held }: { body: object; headers: Record<string, string>; held: boolean },
): Answer {
  if (snapshotCreate === "async" || !held) return { status: 202, body, headers }
  const reason = "state_error" in body ? `: ${String(body.state_error)}` : ""
  const message = `the work continues; ask ${headers["Location"]} for the result${reason}`
  return problem("timeout", message, { retry: false })
}
