import { Writable } from "node:stream"
import type { DispatcherConfig } from "@stillframe/dispatcher/config"
import { startDispatcher } from "@stillframe/dispatcher/start"
import { pino, type Logger } from "pino"

export const secretsKey = "a key for tests that is long enough"

export interface CapturedLog {
  readonly log: Logger
  /** Each as it would be written. */
  readonly lines: string[]
}

export function capturedLog(): CapturedLog {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString("utf8"))
      done()
    },
  })
  return { log: pino({ level: "trace" }, stream), lines }
}

/** A dispatcher that may reach loopback, on the PostgreSQL engine unless told otherwise. */
export async function testDispatcher(
  config: Pick<DispatcherConfig, "databaseUrl"> & Partial<DispatcherConfig>,
  log: Logger = capturedLog().log,
): Promise<AsyncDisposable> {
  const webhooks = { allowedCidrs: ["127.0.0.0/8", "::1/128"], stackPorts: [] }
  return startDispatcher({ secretsKey, webhooks, databaseDirectUrl: config.databaseUrl, ...config }, log)
}
