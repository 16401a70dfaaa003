import type { OwnedDatabase } from "@stillframe/db/client"
import { countEndlessTokens, rememberEndlessTokens } from "@stillframe/db/endless-tokens"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import type { Logger } from "@stillframe/runtime/logger"

/** A request does not wait for it. */
const flushMs = 500

/**
 * Counts the different tokens without `exp` that are used, so that an operator knows what JWT_REQUIRE_EXP
 * would refuse.
 */
export interface EndlessTokens extends AsyncDisposable {
  /** `tokenHash`: never the token. */
  note(tokenHash: string): void
}

/** Says in the log how many were seen in the last 30 days, and again whenever new ones come. */
export async function openEndlessTokens(db: OwnedDatabase, log: Logger): Promise<EndlessTokens> {
  const noted = new Set<string>()
  let timer: NodeJS.Timeout | undefined
  let flushing: Promise<void> = Promise.resolve()
  const trouble = openTrouble(log, {
    lost: "tokens without exp not counted",
    back: "tokens without exp are counted again",
  })
  const tell = async (): Promise<void> => {
    const different = await countEndlessTokens(db)
    const text = "tokens without exp are in use and never end; JWT_REQUIRE_EXP=true refuses them"
    if (different > 0) log.warn({ different }, text)
  }

  async function write(hashes: readonly string[]): Promise<void> {
    if ((await rememberEndlessTokens(db, hashes)) > 0) await tell()
  }

  function flush(): void {
    timer = undefined
    const hashes = [...noted]
    noted.clear()
    if (hashes.length === 0) return
    flushing = flushing.then(() => write(hashes)).then(trouble.worked, trouble.failed)
  }

  await tell()
  return {
    note(tokenHash) {
      noted.add(tokenHash)
      timer ??= setTimeout(flush, flushMs)
    },
    async [Symbol.asyncDispose]() {
      clearTimeout(timer)
      flush()
      await flushing
    },
  }
}
