/** The queue of all work on the VMs of one host. */
export function captureQueue(host: string): string {
  return `capture.${host}`
}

/** The queue of all work on the files of one pool. */
export function compressQueue(pool: string): string {
  return `compress.${pool}`
}
