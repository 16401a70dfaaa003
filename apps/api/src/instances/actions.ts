import { lockInstance, type InstanceRow } from "@stillframe/db/instances/instances"
import { resolveInstance } from "@stillframe/db/instances/shown"
import { createOperation, pendingStateOperation } from "@stillframe/db/operations/operations"
import type { Database } from "@stillframe/db/schema"
import { compressionMistake } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { actionStates, type InstanceState, type TargetState } from "@stillframe/domain/instance"
import type { OperationKind } from "@stillframe/domain/operation"
import { captureQueue } from "@stillframe/domain/queues"
import { parseDuration } from "@stillframe/domain/text/duration"
import { shownReason } from "@stillframe/domain/text/reason"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { compressionSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { heldMs, waitSecondsMax } from "../http/prefer.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { instanceSchema } from "../openapi/resources.ts"
import { answerWithInstance, instanceWork, replayInstanceWork } from "./operations.ts"
import { requireHost } from "./require-host.ts"

// The contract's bodies; an image's command means nothing to a VM, so it is accepted and not used.
const startSchema = z
  .object({
    cmd: z.array(z.string()).optional().describe("Accepted for clients of containers, and not used."),
    entrypoint: z.array(z.string()).optional().describe("Accepted for clients of containers, and not used."),
  })
  .meta({ id: "StartInstanceRequest", description: "The options of a start." })
const standbySchema = z
  .object({
    compression: compressionSchema
      .optional()
      .describe("Checked, and not used: the image is read back as it is."),
    compression_delay: z
      .string()
      .optional()
      .meta({ examples: ["30s"], description: "A duration that is checked and has no effect." }),
  })
  .meta({ id: "StandbyInstanceRequest", description: "The options of Standby." })

/** `stop`, `start`, `standby` and `restore` out of it: each answers when the instance is in its new state. */
export function instanceActionRoutes(deps: ApiDeps): Route[] {
  const work = { holds: true, replay: replayInstanceWork(deps, 200) }
  return [
    route({
      method: "post",
      path: "/instances/:id/stop",
      operationId: "stopInstance",
      summary: "Stop an instance",
      answers: { 200: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "instance:write",
      ...work,
      handle: (call) => act(deps, call, stopOf),
    }),
    route({
      method: "post",
      path: "/instances/:id/start",
      operationId: "startInstance",
      summary: "Start a stopped instance",
      answers: { 200: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "instance:write",
      ...work,
      body: startSchema,
      emptyBody: {},
      handle: (call) => act(deps, call, (instance) => action("start", instance)),
    }),
    route({
      method: "post",
      path: "/instances/:id/standby",
      operationId: "standbyInstance",
      summary: "Put an instance into Standby",
      answers: { 200: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "instance:write",
      ...work,
      body: standbySchema,
      emptyBody: {},
      handle(call) {
        checkStandby(call.body)
        return act(deps, call, (instance) => action("standby", instance))
      },
    }),
    route({
      method: "post",
      path: "/instances/:id/restore",
      operationId: "restoreInstance",
      summary: "Resume an instance from Standby",
      answers: { 200: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "instance:write",
      ...work,
      handle: (call) =>
        act(deps, call, (instance) => ({
          ...action("resume", instance),
          kind: "restore",
          target: "Running",
        })),
    }),
  ]
}

interface Action {
  readonly kind: OperationKind
  /** Set for a restore. */
  readonly target?: TargetState
}

/**
 * Throws `not_supported` when the VM is not ours to act on, `invalid_state` when the instance is in no state
 * for it.
 */
export function action(
  name: "stop" | "start" | "standby" | "resume" | "restore",
  instance: InstanceRow,
): Action {
  if (instance.attached !== null && name !== "restore" && name !== "resume")
    throw new StillframeError(
      "not_supported",
      `the instance is an attached VM, so it does not support ${name}. Use the tools of the VM's owner, or DELETE the instance to detach it`,
    )
  const allowed: readonly InstanceState[] = actionStates[name]
  if (allowed.includes(instance.state)) return { kind: name === "resume" ? "restore" : name }
  const call = name === "resume" ? "restore" : name
  throw new StillframeError(
    "invalid_state",
    `invalid state transition: ${call} requires an instance in ${allowed.join(" or ")}, got ${whyIn(instance)}`,
  )
}

/**
 * An instance's state, for a message; of one that stands still or does not answer with the reason, which says
 * what to do.
 */
export function whyIn({ state, state_error }: Pick<InstanceRow, "state" | "state_error">): string {
  return (state === "Paused" || state === "Unknown") && state_error !== null
    ? `${state}: ${shownReason(state_error)}`
    : state
}

/**
 * Locks the instance and makes sure that nothing else is about to change its state. Throws `not_found` or
 * `invalid_state`.
 */
export async function claimState(tx: Database, instanceId: string): Promise<InstanceRow> {
  const instance = await lockInstance(tx, instanceId)
  if (instance === undefined) throw new StillframeError("not_found", "resource not found")
  const pending = await pendingStateOperation(tx, instanceId)
  if (pending !== undefined)
    throw new StillframeError(
      "invalid_state",
      `a ${pending.kind} of the instance is in progress; wait until it ends, then check the state of the instance`,
    )
  return instance
}

/** In Standby there is no VM to stop: the image is taken apart, its disks kept and its memory dropped. */
function stopOf(instance: InstanceRow): Action {
  if (instance.state === "Standby") return { kind: "restore", target: "Stopped" }
  return action("stop", instance)
}

async function act(
  deps: ApiDeps,
  { params: { id = "" }, prefer, identity, signal }: Call<unknown, unknown>,
  choose: (instance: InstanceRow) => Action,
): Promise<Answer> {
  const resolved = await resolveInstance(deps.db, id)
  requireHost(resolved)
  const { id: instanceId } = resolved
  const begun = await once(deps, identity, async (tx) => {
    const instance = await claimState(tx, instanceId)
    const { kind, target } = choose(instance)
    const operationId = await createOperation(tx, {
      kind,
      queue: captureQueue(instance.host),
      instanceId,
      ...(target !== undefined && { params: { target } }),
    })
    return instanceWork(instance, operationId)
  })
  deps.waker.wake("operations")
  const timeoutMs = heldMs(prefer, { seconds: waitSecondsMax })
  return answerWithInstance(deps, begun, { timeoutMs, signal, status: 200 })
}

/**
 * An instance's own image is read back as it is when it goes on, so it is not compressed; a mistake in the
 * wish is one all the same.
 */
function checkStandby({ compression, compression_delay }: z.output<typeof standbySchema>): void {
  const mistake = compression && compressionMistake(compression)
  if (mistake !== undefined) throw new StillframeError("invalid_snapshot_compression", mistake)
  if (compression_delay !== undefined && parseDuration(compression_delay) === undefined)
    throw new StillframeError(
      "invalid_compression_delay",
      'compression_delay must be a duration of at least 0, such as "30s" or "5m"',
    )
}
