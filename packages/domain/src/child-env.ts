/** All that a child process of ours may know of our environment: no setting and no secret. */
const inherited = [
  "PATH",
  "HOME",
  "TMPDIR",
  "TZ",
  "LANG",
  "LC_ALL",
  "LD_LIBRARY_PATH",
  "NODE_COMPILE_CACHE",
] as const

/**
 * The environment of a child process. Ours holds secrets, and a child may be broken out of or show it in
 * `/proc`.
 */
export function childEnv(): Record<string, string> {
  const { env } = process
  return Object.fromEntries(
    inherited.flatMap((name) => {
      const value = env[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )
}
