import { readFile, stat } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import type { Logger } from "@stillframe/runtime/logger"

/** A token is refused at most so long after its id came into the file. */
const lookMs = 1_000

/** The ids (`jti`) of tokens that are refused though they are signed and not over. */
export interface RevokedTokens extends Disposable {
  has(id: string): boolean
  /** Calls `listener` after the file was read again, until the returned function is called. */
  listen(listener: () => void): () => void
}

/**
 * Reads a file with an id on each line, again whenever it changes; `#` begins a comment. While it cannot be
 * read, the ids that were read last count. Throws where it cannot be read at the start: a list that is absent
 * would let revoked tokens in.
 */
export async function openRevokedTokens(file: string, log: Logger): Promise<RevokedTokens> {
  const trouble = openTrouble(log, {
    lost: "revoked tokens not read",
    back: "revoked tokens are read again",
  })
  let version = ""
  let ids: ReadonlySet<string> = new Set()
  const listeners = new Set<() => void>()

  async function look(): Promise<void> {
    const { mtimeMs, ctimeMs, ino, size } = await stat(file)
    const found = [mtimeMs, ctimeMs, ino, size].join(" ")
    if (found === version) return
    ids = idsIn(await readFile(file, "utf8"))
    version = found
    log.info({ revoked: ids.size }, "revoked tokens read")
    for (const listener of listeners) listener()
  }

  await look().catch((cause: Error) => {
    const message =
      "the file of JWT_REVOKED_FILE cannot be read; make it, empty if no token is revoked, and readable for this process"
    throw new StillframeError("invalid_request", message, { cause, said: cause.message })
  })
  let looking = false
  const timer = setInterval(() => {
    if (looking) return
    looking = true
    void look()
      .then(trouble.worked, trouble.failed)
      .finally(() => (looking = false))
  }, lookMs)
  timer.unref()
  return {
    has: (id) => ids.has(id),
    listen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    [Symbol.dispose]: () => clearInterval(timer),
  }
}

function idsIn(text: string): Set<string> {
  const lines = text.split("\n").map((line) => line.replace(/#.*/, "").trim())
  return new Set(lines.filter((line) => line !== ""))
}
