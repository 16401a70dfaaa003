import { fileSize } from "./file-size.ts"

/**
 * False only where the system says that there is nothing: what can't be looked at may still hold a VM's data.
 */
export async function fileExists(path: string): Promise<boolean> {
  return (await fileSize(path)) !== undefined
}
