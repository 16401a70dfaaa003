import { accessSync, constants, statSync } from "node:fs"
import { delimiter, isAbsolute, join } from "node:path"

/**
 * The absolute path of a program, looked for in the folders of `path` as a shell does; the name itself if it
 * is in none.
 */
export function findProgram(name: string, path = ""): string {
  if (isAbsolute(name)) return name
  const candidates = path
    .split(delimiter)
    .filter(isAbsolute)
    .map((folder) => join(folder, name))
  return candidates.find(isExecutable) ?? name
}

/** True where `name` is, or is found on `path` as, a file that this process can execute. */
export function isProgram(name: string, path?: string): boolean {
  const found = findProgram(name, path)
  return isAbsolute(found) && isExecutable(found)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    // Absent or not ours to run: either way it is not this one.
    return false
  }
}
