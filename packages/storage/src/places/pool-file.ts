import { join } from "node:path"
import { z } from "zod"
import { createDurably } from "../durable.ts"
import { readIdFile } from "./id-file.ts"

const poolFile = z.object({ id: z.string(), installation: z.string() })

/** `pool.json` in the root of a pool's directory: which pool it is, and of which installation. */
export type PoolFile = z.infer<typeof poolFile>

const pathIn = (dir: string): string => join(dir, "pool.json")

/** Throws as `readIdFile` does. */
export function readPoolFile(dir: string): Promise<PoolFile | undefined> {
  return readIdFile(pathIn(dir), poolFile)
}

/**
 * Makes the file durable unless it exists. Resolves with its content, because another process may have been
 * first.
 */
export async function createPoolFile(dir: string, file: PoolFile): Promise<PoolFile | undefined> {
  await createDurably(pathIn(dir), `${JSON.stringify(file)}\n`)
  return readPoolFile(dir)
}
