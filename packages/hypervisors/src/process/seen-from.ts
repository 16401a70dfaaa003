import { isAbsolute, relative, sep } from "node:path"

/**
 * A directory as the process of the VM in `home` is told of it: relative to its working directory where it
 * lies below it. It may run as a user who could not walk there from the root.
 */
export function seenFrom(home: string, dir: string): string {
  const path = relative(home, dir)
  const below = path !== "" && path !== ".." && !path.startsWith(`..${sep}`) && !isAbsolute(path)
  return below ? path : dir
}
