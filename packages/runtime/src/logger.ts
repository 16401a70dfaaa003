import { pino, type Logger as PinoLogger } from "pino"

export type Logger = PinoLogger

/**
 * One line of JSON per event on standard error, so that standard output stays a command's own. Never pass it secrets,
 * URLs with credentials, or payload bodies; `redact` is the net below that rule.
 */
export function createLogger({ service, level }: { service: string; level: string }): Logger {
  return pino(
    {
      level,
      base: { service },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: ["secret", "token", "authorization", "*.secret", "*.authorization", "*.password"],
    },
    pino.destination({ fd: 2, sync: true }),
  )
}
