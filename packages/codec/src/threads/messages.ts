import type { ErrorCode } from "@stillframe/domain/errors"

/**
 * A message of a thread: once that it has loaded, then for each task any number of batches and one of the
 * others.
 */
export type Answer =
  | { state: "loaded" }
  | { state: "batch"; batch: number; content: ArrayBuffer | undefined }
  | { state: "done"; result: string | undefined }
  | { state: "stopped" }
  /** `systemCode`: that of the system call that failed, such as `EPIPE`. */
  | {
      state: "failed"
      code: ErrorCode
      message: string
      said: string | undefined
      systemCode: string | undefined
    }
