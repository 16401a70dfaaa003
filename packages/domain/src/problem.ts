import type { ErrorCode } from "./errors.ts"

/** One thing that a running process cannot do at present. `message` says why and what to do. */
export interface Problem {
  readonly code: ErrorCode
  readonly message: string
}
