/**
 * The answers of a file system that makes no hard links, or no more of a file: FAT, FUSE, some network file
 * systems, a full link count.
 */
const withoutLinks: ReadonlySet<string | undefined> = new Set([
  "EXDEV",
  // Also the kernel's protected_hardlinks.
  "EPERM",
  "EMLINK",
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOSYS",
])

/** True for the failure of a link where a copy does instead. */
export function cannotLink(error: unknown): boolean {
  return withoutLinks.has((error as { code?: string }).code)
}
