import type { ClaimedOperation } from "@stillframe/db/operations"
import { reserveSpace } from "@stillframe/db/space"
import { StillframeError } from "@stillframe/domain/errors"
import type { Disk } from "@stillframe/hypervisors/disks"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import type { Manifest } from "@stillframe/storage/manifest"
import { freeBytes } from "@stillframe/storage/space"
import type { HostHypervisor, Worker } from "./worker.ts"

interface RoomRequest {
  readonly pool: string
  readonly dir: string
  readonly bytes: number
  /** For people: what `dir` is, and what is to lie there. */
  readonly where: string
  readonly whose: string
}

/** Reserves room for as long as an operation runs. Throws `insufficient_storage` with what there is and what it takes. */
export async function reserveRoom(
  { db, config }: Worker,
  operation: ClaimedOperation,
  { pool, dir, bytes, where, whose }: RoomRequest,
): Promise<void> {
  const free = await freeBytes(dir)
  const request = {
    operationId: operation.id,
    pool,
    bytes,
    freeBytes: free,
    floorBytes: config.spaceFloorBytes,
  }
  if (await reserveSpace(db, request)) return
  throw new StillframeError(
    "insufficient_storage",
    `${where} has ${free} bytes free; ${whose} may take ${bytes}, and ${config.spaceFloorBytes} stay free. Delete snapshots, or give it more`,
  )
}

/** Likewise for disks that another hypervisor has left and that are to be converted. */
export async function assertRoomToBring(
  worker: Worker,
  operation: ClaimedOperation,
  { pool, host, manifest, dir }: { pool: string; host: HostHypervisor; manifest: Manifest; dir: string },
): Promise<void> {
  const frozen = manifest.disks as unknown as Disk[]
  const bytes = await hypervisorOf(host.tools).roomToBring(frozen, dir)
  if (bytes === 0) return
  await reserveRoom(worker, operation, {
    pool,
    dir: worker.config.dataDir,
    bytes,
    where: `host ${worker.config.host}`,
    whose: `the disks as ${host.tools.name} reads them`,
  })
}
