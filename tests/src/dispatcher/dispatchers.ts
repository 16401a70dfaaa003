import type { DispatcherConfig } from "@stillframe/dispatcher/config"
import { startDispatcher } from "@stillframe/dispatcher/start"
import { createLogger, type Logger } from "@stillframe/runtime/logger"

export const secretsKey = "a key for tests that is long enough"

export interface CapturedLog {
  readonly log: Logger
  /** Each as it would be written. */
  readonly lines: string[]
}

export function capturedLog(): CapturedLog {
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  return { log: createLogger({ service: "test", level: "trace", destination }), lines }
}

/** A dispatcher that may reach loopback, on the PostgreSQL engine unless told otherwise. */
export async function testDispatcher(
  config: Pick<DispatcherConfig, "databaseUrl"> & Partial<DispatcherConfig>,
  log: Logger = capturedLog().log,
): Promise<AsyncDisposable> {
  const webhooks = { allowedCidrs: ["127.0.0.0/8", "::1/128"], stackPorts: [] }
  const retention = { eventRetentionMs: 30 * 24 * 3_600_000 }
  // Fewer than its loops, which all begin at once: each connection takes Postgres a while.
  const defaults = { secretsKey, webhooks, ...retention, databaseConnections: 3 }
  return startDispatcher({ ...defaults, databaseDirectUrl: config.databaseUrl, ...config }, log)
}
