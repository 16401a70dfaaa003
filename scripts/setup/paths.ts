import { join } from "node:path"

export const checkout = join(import.meta.dirname, "..", "..")

/** Everything the set-up brings; removing this folder undoes all of it. */
export const tools = join(checkout, ".tools")

/**
 * Half-made things. Only the holder of the set-up's lock works here, so whatever lies in it at the start is
 * waste.
 */
export const unfinished = join(tools, "unfinished")
