/**
 * A setting of a Postgres session that Stillframe relies on. A database or a role may have other defaults, so
 * each connection sets it. `accepts` judges a value of `pg_settings` that a transaction-mode pooler keeps us
 * from setting.
 */
interface SessionSetting {
  readonly name: string
  readonly value: string
  readonly accepts?: (setting: string) => boolean
}

/** A time-out below this would end statements that are in order. */
const timeoutMsMin = 30_000
const longEnough = (setting: string): boolean => setting === "0" || Number(setting) >= timeoutMsMin
const unlimited = (name: string): SessionSetting => ({ name, value: "0", accepts: longEnough })
const exactly = (name: string, value: string): SessionSetting => ({
  name,
  value,
  accepts: (setting) => setting === value,
})

/** A client that vanished inside a transaction keeps its locks this long. */
const idleInTransactionMs = 60_000

export const sessionSettings: readonly SessionSetting[] = [
  // The drivers read dates, floats and bytes in these forms only.
  { name: "DateStyle", value: "ISO, MDY", accepts: (setting) => setting.startsWith("ISO") },
  { name: "IntervalStyle", value: "postgres" },
  { name: "TimeZone", value: "UTC" },
  { name: "extra_float_digits", value: "1" },
  { name: "bytea_output", value: "hex" },
  exactly("standard_conforming_strings", "on"),
  exactly("array_nulls", "on"),
  exactly("transform_null_equals", "off"),
  // The fences of the schema's functions need a snapshot per statement.
  exactly("default_transaction_isolation", "read committed"),
  exactly("default_transaction_deferrable", "off"),
  // Files are deleted once a commit says so: it must outlive a crash of Postgres.
  { name: "synchronous_commit", value: "on", accepts: (setting) => setting !== "off" },
  // A search by tags must find all.
  exactly("gin_fuzzy_search_limit", "0"),
  exactly("exit_on_error", "off"),
  unlimited("statement_timeout"),
  unlimited("lock_timeout"),
  unlimited("transaction_timeout"),
  unlimited("idle_session_timeout"),
  {
    name: "idle_in_transaction_session_timeout",
    value: String(idleInTransactionMs),
    accepts: longEnough,
  },
]

/**
 * Sets all of them for the rest of a session, in one statement without parameters. Those that this version of
 * Postgres lacks are left out, and so is a `synchronous_commit` that is at least as strong.
 */
export const setSession = `select set_config(name, value, false) from (values ${sessionSettings
  .map(({ name, value }) => `('${name}', '${value}')`)
  .join(", ")}) as wanted (name, value)
  where current_setting(name, true) <> value
    and (name <> 'synchronous_commit' or current_setting(name, true) = 'off')`

/** Startup parameters that poolers in transaction mode keep apart for each client. */
export const pooledStartup: Readonly<Record<string, string>> = {
  DateStyle: "ISO, MDY",
  TimeZone: "UTC",
  standard_conforming_strings: "on",
}
