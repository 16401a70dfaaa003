import { accessSync, constants } from "node:fs"
import { delimiter, isAbsolute, join } from "node:path"

/** The absolute path of a program, looked for in the folders of `path` as a shell does; the name itself if it is in none. */
export function findProgram(name: string, path = ""): string {
  if (isAbsolute(name)) return name
  const candidates = path
    .split(delimiter)
    .filter(isAbsolute)
    .map((folder) => join(folder, name))
  return candidates.find(isExecutable) ?? name
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    // Absent or not ours to run: either way it is not this one.
    return false
  }
}
