/** What a token's `permissions` can allow; `*` is everything, and so is a token without the claim. */
export const scopes = [
  "snapshot:read",
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
