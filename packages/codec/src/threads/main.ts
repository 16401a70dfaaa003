import { parentPort } from "node:worker_threads"
import { toStillframeError } from "@stillframe/domain/errors"
import { fileError } from "../frames/files.ts"
import { type CompressTask, runCompressTask } from "./compress-task.ts"
import { stop, stopped } from "./control.ts"
import {
  type DecodeToFileTask,
  type DecodeToMessagesTask,
  runDecodeToFile,
  runDecodeToMessages,
} from "./decompress-task.ts"
import type { Answer } from "./messages.ts"
import { type DecodeToRingTask, type HashRingTask, runDecodeToRing, runHashRing } from "./verify-task.ts"

/** One thread's part of a run. File descriptors are the process's, shared by all its threads. */
export type Task = CompressTask | DecodeToFileTask | DecodeToMessagesTask | DecodeToRingTask | HashRingTask

parentPort?.on("message", (task: Task) => {
  try {
    answer({ state: "done", result: perform(task) ?? undefined })
  } catch (thrown) {
    if (thrown === stopped) return answer({ state: "stopped" })
    // Not left to the main thread: the others may be waiting for this one's turn.
    stop(task.control)
    const { code, message, said } = toStillframeError(fileError(thrown))
    answer({
      state: "failed",
      code,
      message,
      said,
      systemCode: (thrown as NodeJS.ErrnoException).syscall && (thrown as NodeJS.ErrnoException).code,
    })
  }
})

function perform(task: Task): string | void {
  switch (task.kind) {
    case "compress":
      return runCompressTask(task)
    case "decode-to-file":
      return runDecodeToFile(task)
    case "decode-to-messages":
      return runDecodeToMessages(task, (batch, content) =>
        answer({ state: "batch", batch, content }, content ? [content] : []),
      )
    case "decode-to-ring":
      return runDecodeToRing(task)
    case "hash-ring":
      return runHashRing(task)
  }
}

function answer(message: Answer, transfer: ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, transfer)
}

answer({ state: "loaded" })
