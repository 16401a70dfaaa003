import { hostname } from "node:os"
import { resolve } from "node:path"
import { hostNamePattern, toHostName } from "@stillframe/domain/text/names"
import ipaddr from "ipaddr.js"
import { z } from "zod"

const postgresUrl = serviceUrl(/^postgres(ql)?$/, "postgres://user:password@host:5432/database")

/** Settings that several apps read, by the name of their variable. */
export const databaseSettings = {
  DATABASE_URL: postgresUrl,
  DATABASE_DIRECT_URL: postgresUrl.optional(),
  DATABASE_CONNECTIONS: wholeNumber({ min: 2, max: 1_000 }).optional(),
  REDIS_URL: serviceUrl(/^rediss?$/, "redis://user:password@host:6379").optional(),
}

export const logSettings = {
  LOG_LEVEL: z
    .enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"], {
      error: "must be one of fatal, error, warn, info, debug, trace, silent",
    })
    .default("info"),
}

const defaultDataDir = resolve(import.meta.dirname, "../../../.stillframe")

/** QEMU takes a comma for the end of an option and a colon for that of a protocol. */
const directory = z
  .string()
  .transform((path) => resolve(path))
  // oxlint-disable-next-line no-control-regex -- they would end a line of a log
  .refine((path) => !/[,:\\\u0000-\u001f\u007f]/.test(path), {
    error:
      "must be a path without comma, colon, backslash and control character; move or rename the directory",
  })

export const storageSettings = {
  DATA_DIR: directory.prefault(defaultDataDir),
  STORAGE_DIR: directory.optional(),
}

const hostName = z.string().regex(hostNamePattern, "must be 1 to 63 of a-z, 0-9 and -")

export const hostSettings = {
  HOST_NAME: hostName.default(() => toHostName(hostname())),
  STORAGE_POOL: hostName.default(() => toHostName(hostname())),
}

const secretRule =
  "at least 32 characters that cannot be guessed, such as the output of `openssl rand -hex 32`"
const secret = z
  .string({ error: `must be set, to ${secretRule}` })
  .min(32, `is too short: it must be ${secretRule}`)

export const secretSettings = {
  JWT_SECRET: secret,
  SECRETS_KEY: secret,
}

/** Ranges of addresses, separated by commas or spaces; none when unset. */
export const addressRanges = z
  .string()
  .default("")
  .transform((text) => text.split(/[\s,]+/).filter((cidr) => cidr !== ""))
  .refine((cidrs) => cidrs.every((cidr) => ipaddr.isValidCIDR(cidr)), {
    error: "must be a list of ranges such as 10.0.0.0/8,fd00::/8",
  })

export const webhookSettings = { WEBHOOK_ALLOWED_CIDRS: addressRanges }

/** A whole number in a range, from a variable's text. */
export function wholeNumber({ min, max }: { min: number; max: number }): z.ZodCoercedNumber {
  const error = `must be a whole number from ${min} to ${max}`
  return z.coerce.number({ error }).int(error).min(min, error).max(max, error)
}

/**
 * The URL of a database or queue. Its mistakes show the form that it must have and never the value, which
 * holds a password.
 */
function serviceUrl(protocol: RegExp, form: string): z.ZodURL {
  return z.url({
    protocol,
    error: ({ input }) =>
      input === undefined
        ? `must be set, to a URL such as ${form}`
        : `is not a URL of the form ${form}; write special characters of user and password as %XX`,
  })
}
