import { createId } from "@stillframe/domain/ids"
import { installImages } from "@stillframe/stillframe/stack/install-images"
import { makeOwnDirectory } from "@stillframe/storage/own-directory"
import { claimPool } from "@stillframe/storage/places/claim-pool"
import { takeIn } from "@stillframe/storage/places/home"
import type { KnownPool, PoolRegister } from "@stillframe/storage/places/known-pool"

const installation = createId()

function registerOf(id: string | undefined): PoolRegister {
  const known: KnownPool = {
    name: "pool",
    installation,
    id,
    pools: [],
    payloads: [],
    deleting: false,
    strays: [],
  }
  return { look: async () => known, settle: async (decide) => (await decide(known)).id }
}

/**
 * How the service takes each directory at its start: that of DATA_DIR, of a new and of a known pool, and of
 * the built-in guests.
 */
const starts: Readonly<Record<string, (dir: string) => Promise<unknown>>> = {
  async DATA_DIR(dir) {
    await makeOwnDirectory("DATA_DIR", dir)
    await takeIn(dir, installation)
  },
  STORAGE_DIR: (dir) => claimPool(dir, registerOf(undefined)),
  "STORAGE_DIR of a known pool": (dir) => claimPool(dir, registerOf(createId())),
  async images(dir) {
    const left = await installImages(dir)
    if (left.length > 0) throw new Error(`left out: ${left.join(", ")}`)
  },
}

/** The words of each start about `dir`, without the path. */
export async function saidOf(dir: string): Promise<Record<string, string>> {
  const said: Record<string, string> = {}
  for (const [name, start] of Object.entries(starts))
    said[name] = await start(dir).then(
      () => "nothing",
      (error: Error) => error.message.replaceAll(dir, "<dir>"),
    )
  return said
}

if (import.meta.main) console.log(JSON.stringify(await saidOf(process.argv[2] ?? "")))
