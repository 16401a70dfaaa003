import { pino, type DestinationStream, type Logger as PinoLogger } from "pino"

export type Logger = PinoLogger

/**
 * One line of JSON per event on standard error, so that standard output stays a command's own. Never pass it
 * secrets, URLs with credentials, or payload bodies; `redact` is the net below that rule.
 */
export function createLogger({
  service,
  level,
  destination = pino.destination({ fd: 2, sync: true }),
}: {
  service: string
  level: string
  destination?: DestinationStream
}): Logger {
  return pino(
    {
      level,
      base: { service },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: plainError },
      redact: ["secret", "token", "authorization", "*.secret", "*.authorization", "*.password"],
    },
    destination,
  )
}

interface PlainError {
  readonly type: string
  readonly message: string
  readonly code?: unknown
  readonly said?: string
  readonly stack?: string | undefined
  readonly cause?: PlainError
}

const causesMax = 4

/** Copies only harmless members: libraries attach whole connections to errors, with keys and parameters. */
function plainError(error: unknown, depth = 0): PlainError {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) }
  const { code, said } = error as NodeJS.ErrnoException & { readonly said?: string }
  return {
    type: error.name,
    message: error.message,
    ...(code !== undefined && { code }),
    ...(said !== undefined && { said }),
    stack: error.stack,
    ...(error.cause !== undefined && depth < causesMax && { cause: plainError(error.cause, depth + 1) }),
  }
}
