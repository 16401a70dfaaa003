import { accessSync, constants, statSync } from "node:fs"
import { delimiter, join } from "node:path"
import { tools } from "./paths.ts"

export const toolsBin = join(tools, "bin")

/** Whether a command would be found once the set-up's own folder is the last one of PATH. */
export function isCommand(name: string): boolean {
  const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== "")
  return [...folders, toolsBin].some((folder) => isExecutable(join(folder, name)))
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    // Absent or not for us: both mean that it cannot be run.
    return false
  }
}
