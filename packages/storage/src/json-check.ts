// By hand, because a captor reads such files: it starts for every operation, and zod is a third of what it
// would load.
/** True for a value of parsed JSON that has the form which is asked for. */
export type Check = (value: unknown) => boolean

export const text: Check = (value) => typeof value === "string"
export const optionalText: Check = (value) => value === undefined || text(value)

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check)

export const record =
  (shape: Readonly<Record<string, Check>>): Check =>
  (value) =>
    isRecord(value) && Object.entries(shape).every(([name, check]) => check(value[name]))
