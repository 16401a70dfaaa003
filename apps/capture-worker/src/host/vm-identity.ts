/** How the host finds the process again: by cluster and instance, never by the binary's name. */
export function identityOf({ clusterId, instanceId }: { clusterId: string; instanceId: string }): string {
  return `stillframe-${clusterId}-${instanceId}`
}
