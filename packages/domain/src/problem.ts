import type { ErrorCode } from "./errors.ts"

/** A lasting failure of a running process. `message` gives the reason and the remedy. */
export interface Problem {
  readonly code: ErrorCode
  readonly message: string
}
