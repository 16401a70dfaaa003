/** Where the work of one machine waits: capture, launch, fork and whatever else touches its VMs. */
export function captureQueue(host: string): string {
  return `capture.${host}`
}

/** Where the work on one storage pool's files waits. */
export function compressQueue(pool: string): string {
  return `compress.${pool}`
}
