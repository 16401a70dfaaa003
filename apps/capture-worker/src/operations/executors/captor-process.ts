import { spawn, type ChildProcess } from "node:child_process"
import { Socket } from "node:net"
import { join } from "node:path"
import { childEnv } from "@stillframe/domain/child-env"
import { StillframeError } from "@stillframe/domain/errors"
import { readBoundedLines } from "@stillframe/hypervisors/process/bounded-lines"
import { processEnv } from "@stillframe/runtime/env"
import {
  captorChannelFd,
  messageBytesMax,
  wordsMax,
  type FromCaptor,
  type ToCaptor,
} from "../../executor/orders.ts"
import { readMessage } from "./captor-messages.ts"

export const captorProgram = join(import.meta.dirname, "../../executor/main.ts")
/** A captor reports its progress ten times a second. */
const messagesPerSecondMax = 200

/**
 * A captor, and the channel to it. Nothing that comes from it is believed without a look: a hypervisor may
 * have broken into it.
 */
export interface CaptorProcess {
  readonly process: ChildProcess
  /** False once either side has closed the channel, and where the process could not start. */
  isConnected(): boolean
  send(message: ToCaptor): void
  /**
   * Closes the channel once what was sent has left. A captor without an order ends then, another one gives up
   * and resumes its VM.
   */
  disconnect(): void
  /** Calls back for each message, until the returned function is called. */
  listen(listener: (message: FromCaptor) => void): () => void
  /** Kills a captor that has sent what none sends. */
  distrust(sent: string, cause?: unknown): StillframeError
  /** Why it was distrusted. */
  breach(): StillframeError | undefined
}

/**
 * Starts `program` in a session of its own: neither Ctrl-C nor the worker's death takes a captor along in the
 * middle of a pause.
 *
 * The channel is not Node's own, which reads a message of any length, and a flood of them.
 */
export function startCaptorProcess(program: string): CaptorProcess {
  const captor = spawn(process.execPath, [program], {
    detached: true,
    // NODE_EXTRA_CA_CERTS is left out too: Node reads those while it starts, through a descriptor that a VM
    // started just then would inherit.
    env: { ...childEnv(), NODE_OPTIONS: processEnv()["NODE_OPTIONS"] },
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  })
  // A captor that could not start, or that died, is noticed by its end.
  captor.on("error", () => {})
  const listeners = new Set<(message: FromCaptor) => void>()
  const channel = channelOf(captor)
  let breach: StillframeError | undefined
  const distrust = (sent: string, cause?: unknown): StillframeError => {
    breach ??= liar(sent, cause)
    captor.kill("SIGKILL")
    return breach
  }
  if (channel !== undefined) {
    const rate = messageRate()
    readBoundedLines(channel, {
      bytesMax: () => messageBytesMax,
      onLine(line) {
        rate.count()
        const message = readMessage(line)
        for (const listener of listeners) listener(message)
      },
      breach: (found) =>
        "tooLong" in found
          ? distrust(`a message of more than ${found.tooLong} bytes`)
          : distrust("a message that makes no sense", found.cause),
    })
    // The end of the captor is noticed by its process.
    channel.on("error", () => {})
  }
  return {
    process: captor,
    isConnected: () => channel?.writable === true,
    send(message) {
      if (channel?.writable === true) channel.write(`${JSON.stringify(message)}\n`)
    },
    disconnect: () => channel?.destroySoon(),
    listen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    distrust,
    breach: () => breach,
  }
}

/** Undefined for a process that could not start. */
function channelOf(captor: Partial<ChildProcess>): Socket | undefined {
  const channel = captor.stdio?.[captorChannelFd]
  return channel instanceof Socket ? channel : undefined
}

function messageRate(): { count(): void } {
  let window = { since: -Infinity, messages: 0 }
  return {
    count() {
      const now = performance.now()
      if (now - window.since > 1_000) window = { since: now, messages: 0 }
      window.messages++
      if (window.messages > messagesPerSecondMax)
        throw new RangeError(`more than ${messagesPerSecondMax} messages in a second`)
    },
  }
}

function liar(sent: string, cause: unknown): StillframeError {
  return new StillframeError(
    "hypervisor_untrusted",
    `the executor process sent ${sent} and was killed. The guest may have escaped its VM: stop the instance`,
    { cause, said: cause instanceof Error ? cause.message.slice(0, wordsMax) : undefined },
  )
}
