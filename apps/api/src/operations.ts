import { findInstance, type InstanceRow } from "@stillframe/db/instances"
import { getOperation, type OperationView } from "@stillframe/db/operations"
import { instanceResource } from "@stillframe/domain/instance"
import { failedWork, problem } from "./problem.ts"
import type { Answer, ApiDeps } from "./route.ts"
import { waitUntil } from "./wait.ts"

/** How an operation ended, or undefined when it has not within `timeoutMs`. */
export function waitForEnd(
  deps: ApiDeps,
  operationId: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<OperationView | undefined> {
  return waitUntil(
    deps,
    async () => {
      const operation = await getOperation(deps.db, operationId)
      return operation.state === "queued" || operation.state === "running" ? undefined : operation
    },
    options,
  )
}

/** The answer of work on an instance: `status` with the instance once it is done, what it failed of, or 202 when the time is up. */
export async function answerWithInstance(
  deps: ApiDeps,
  { instance, operationId }: { instance: InstanceRow; operationId: string },
  options: { timeoutMs: number; signal: AbortSignal; status: 200 | 201 },
): Promise<Answer> {
  const headers = { Location: `/instances/${instance.id}` }
  const end = options.timeoutMs > 0 ? await waitForEnd(deps, operationId, options) : undefined
  if (end === undefined) return { status: 202, body: instanceResource(instance), headers }
  if (end.state !== "done") return failedWork(end)
  const launched = await findInstance(deps.db, instance.id)
  if (launched === undefined)
    return problem("conflict", "the instance was deleted before this answer was given", { retry: false })
  return { status: options.status, body: instanceResource(launched), headers }
}
