/** The values of a token's claim `permissions`. `*` or a missing claim allows everything. */
export const scopes = [
  "snapshot:read",
  /** A part of `snapshot:write`: to take snapshots, and nothing else. */
  "snapshot:create",
  "snapshot:write",
  "snapshot:delete",
  "instance:read",
  "instance:write",
  /** With `instance:write`: to adopt a VM that something else started. */
  "host:attach",
  "webhook:read",
  "webhook:write",
  "event:read",
] as const
export type Scope = (typeof scopes)[number]

/**
 * The most that a token with the scope alone can do, indirect effects included. One sentence or more, in
 * Markdown.
 */
export const scopeEffects: Readonly<Record<Scope, string>> = {
  "snapshot:read": "Sees every snapshot, with its tags and the name of its VM.",
  "snapshot:create":
    "Captures any VM, which pauses it and takes space in the pool. Cannot fork, restore or read.",
  "snapshot:write":
    "Captures any VM, starts new VMs from any snapshot (and cannot delete them), puts any VM that is stopped or in Standby back to an " +
    "older state, which discards its newer one, and compresses and verifies snapshots.",
  "snapshot:delete": "Deletes any snapshot for good.",
  "instance:read": "Sees every VM, every host and the hypervisors of each.",
  "instance:write":
    "Starts VMs from any file below `HOST_PATHS`, and stops, suspends or deletes any VM with its disks.",
  "host:attach": "Takes over a QEMU that something else started on a host. Nothing without `instance:write`.",
  "webhook:read":
    "Sees every webhook with its whole URL, which may hold a secret, and the receivers' answers.",
  "webhook:write":
    "Receives all events at an address of its choice, changes and deletes every webhook, and learns new secrets by rotating them.",
  "event:read":
    "Sees the data of every snapshot and VM as of each event, so all that `snapshot:read` and `instance:read` show of them, and " +
    "webhooks with the origin of their URL.",
}
