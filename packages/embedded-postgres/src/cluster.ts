import { execFile } from "node:child_process"
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  writeFile,
} from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { promisify } from "node:util"
import { childEnv } from "@stillframe/domain/child-env"
import { StillframeError } from "@stillframe/domain/errors"
import { type Account, chooseAccount, NOBODY } from "./account.ts"
import { copyBinaries, exists, findBinaries, type PostgresBinaries } from "./binaries.ts"
import { isAlive } from "./running.ts"

const run = promisify(execFile)

/**
 * In the data directory, where the data themselves lie elsewhere: the folder that holds them and the
 * binaries.
 */
const LOCATION_FILE = "stillframe-location"

export interface Cluster {
  readonly account: Account
  readonly binaries: PostgresBinaries
  /** The real path of what Postgres calls its data directory. */
  readonly data: string
}

export interface ClusterOptions {
  readonly dataDir: string
  readonly user: string
  readonly password: string
  readonly sync: boolean
  readonly signal: AbortSignal | undefined
}

/**
 * Opens the cluster of `dataDir`, made first where there is none. Throws `not_supported` on another major
 * version.
 */
export async function openCluster(options: ClusterOptions): Promise<Cluster> {
  await mkdir(options.dataDir, { recursive: true, mode: 0o700 })
  const dataDir = await realpath(options.dataDir)
  const elsewhere = await locationOf(dataDir)
  const account = await chooseAccount(elsewhere !== undefined)
  const found = await findBinaries()
  if (account.kind !== "nobody") {
    const cluster = { account, binaries: found, data: dataDir }
    await makeCluster(cluster, options)
    return cluster
  }
  if (await exists(join(dataDir, "PG_VERSION"))) {
    throw new StillframeError(
      "not_supported",
      `${dataDir} was made by root in a user namespace, which is refused now: allow user namespaces, or start as an ordinary user who owns it`,
    )
  }
  const home = elsewhere ?? (await makeHome(dataDir))
  const cluster = { account, binaries: await copyBinaries(found, home), data: join(home, "open", "data") }
  await makeCluster(cluster, options)
  return cluster
}

/** Deletes the data of a stopped Postgres, wherever they lie. */
export async function removeEmbeddedPostgres(dataDir: string): Promise<void> {
  const elsewhere = await locationOf(dataDir)
  if (elsewhere !== undefined) await rm(elsewhere, { recursive: true, force: true })
  await rm(dataDir, { recursive: true, force: true })
}

async function locationOf(dataDir: string): Promise<string | undefined> {
  try {
    return (await readFile(join(dataDir, LOCATION_FILE), "utf8")).trim()
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw problem
  }
}

/** A folder whose name nobody can guess and take first; `open` in it is where `nobody` may write. */
async function makeHome(dataDir: string): Promise<string> {
  const home = await mkdtemp("/var/tmp/stillframe-postgres-")
  await chmod(home, 0o755)
  await mkdir(join(home, "open"))
  await chown(join(home, "open"), NOBODY, NOBODY)
  await writeFile(join(dataDir, LOCATION_FILE), `${home}\n`, { flag: "wx" })
  return home
}

async function makeCluster(cluster: Cluster, options: ClusterOptions): Promise<void> {
  const { account, binaries, data } = cluster
  const made = await readFile(join(data, "PG_VERSION"), "utf8").catch(() => undefined)
  if (made?.trim() === binaries.major) return
  if (made !== undefined) {
    throw new StillframeError(
      "not_supported",
      `${data} was made by Postgres ${made.trim()} and this is ${binaries.major}: start the release of Stillframe that made it, or set DATA_DIR to a new directory`,
    )
  }
  await removeAbandoned(data)
  // Made beside and renamed: a start that is killed half-way leaves nothing that looks like data.
  const half = `${data}.new-${process.pid}`
  const passwordFile = `${half}.password`
  try {
    await writeFile(passwordFile, options.password, { mode: 0o600 })
    if (account.kind === "nobody") await chown(passwordFile, NOBODY, NOBODY)
    const words = [
      ...account.words,
      binaries.initdb,
      "-D",
      half,
      "-U",
      options.user,
      `--pwfile=${passwordFile}`,
    ]
    // The built-in provider knows C.UTF-8 on every system; the system's locales differ.
    words.push(
      "-E",
      "UTF8",
      "--locale=C",
      "--locale-provider=builtin",
      "--builtin-locale=C.UTF-8",
      "--auth=scram-sha-256",
    )
    if (!options.sync) words.push("--no-sync")
    await run(words[0] ?? "", words.slice(1), { cwd: "/", env: childEnv(), signal: options.signal })
    await publish(half, data)
  } catch (cause) {
    if (options.signal?.aborted === true || cause instanceof StillframeError) throw cause
    const reason = (cause as { stderr?: string }).stderr?.trim() || String(cause)
    throw new StillframeError("unavailable", `Postgres could not make ${data}: ${reason}`, { cause })
  } finally {
    await rm(passwordFile, { force: true })
    await rm(half, { recursive: true, force: true })
  }
}

async function publish(half: string, data: string): Promise<void> {
  try {
    // rename replaces an empty folder only.
    await rename(half, data)
  } catch (problem) {
    const { code } = problem as NodeJS.ErrnoException
    if (code !== "ENOTEMPTY" && code !== "EEXIST") throw problem
    // Another start was first: its data are as good as ours.
    if (await exists(join(data, "PG_VERSION"))) return
    throw new StillframeError(
      "conflict",
      `${data} holds files that are not Postgres's: name an empty folder as DATA_DIR`,
      {
        cause: problem,
      },
    )
  }
}

async function removeAbandoned(data: string): Promise<void> {
  const prefix = `${basename(data)}.new-`
  for (const name of await readdir(dirname(data))) {
    const pid = Number.parseInt(name.slice(prefix.length), 10)
    if (name.startsWith(prefix) && !isAlive(pid))
      await rm(join(dirname(data), name), { recursive: true, force: true })
  }
  await rmdir(data).catch(() => {
    // Absent, or not empty and then judged by publish().
  })
}
