import { join } from "node:path"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import { hostImages, type ImageStore } from "@stillframe/hypervisors/disks/image-store"
import { openImporter, openLaunchFiles } from "@stillframe/hypervisors/disks/launch-files"
import { layRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import type { DiskConfig } from "@stillframe/hypervisors/launch-config"
import { never, type Ground } from "./test-vm.ts"

/** Where the images of a test's host lie. */
export function storeIn({ root }: Pick<Ground, "root">): ImageStore {
  return hostImages(join(root, "data"))
}

/** The raw disks of a new VM, laid in its directory as a launch does. */
export async function layDisks(place: Ground, disks: DiskConfig[]): Promise<{ dir: string; disks: Disk[] }> {
  const dir = await place.folder("vm")
  const rules = { hostPaths: ["/"], dataDir: join(place.root, "data") }
  await using files = await openLaunchFiles({ memoryMib: 64, vcpus: 1, disks }, rules)
  const importer = await openImporter(files, { dir, rules, signal: never })
  return { dir, disks: await layRawDisks(files.disks, { dir, importer }) }
}
