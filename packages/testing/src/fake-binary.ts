import { chmod, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/**
 * An executable in `folder` that behaves like a hypervisor's binary of the given version, such as `v53.0` (a
 * shim of vz has none): a program of ours in `fakes/`, which any test may name wherever it could name the
 * real one.
 */
export async function fakeBinary(
  folder: string,
  ...[name, version]: [name: "cloud-hypervisor" | "firecracker", version: string] | [name: "vz-shim"]
): Promise<string> {
  const script = fileURLToPath(new URL(`./fakes/${name}.ts`, import.meta.url))
  const path = join(folder, version === undefined ? name : `${name}-${version}`)
  const own = version === undefined ? "" : ` --fake-version ${version}`
  // A fake starts in an environment without a PATH to this Node, and without the cache that lets it start in
  // half the time.
  const cache = process.env["NODE_COMPILE_CACHE"]
  const exported = cache === undefined ? "" : `export NODE_COMPILE_CACHE='${cache}'\n`
  await writeFile(path, `#!/bin/sh\n${exported}exec '${process.execPath}' '${script}'${own} "$@"\n`)
  await chmod(path, 0o755)
  return path
}
