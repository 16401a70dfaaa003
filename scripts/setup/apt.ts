import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { isExecutable } from "./executables.ts"
import { unfinished } from "./paths.ts"
import { SetupProblem } from "./problem.ts"

const APT_GET = "/usr/bin/apt-get"
const APT_CACHE = "/usr/bin/apt-cache"

// It belongs with the running system's loader, and within a release its symbols do not change.
const neverReplaced = new Set(["libc6", "libc-bin"])

// Left out: hooks of the system that need root, and lists that nothing here reads.
const privateSettings = `
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-large::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Sandbox::User "root";
Dir::State::status "/var/lib/dpkg/status";
`

/** Packages of Debian and Ubuntu, fetched and unpacked without being installed; for root and user alike. */
export interface Apt {
  /** What installing `packages` would add to this machine, themselves included and recommendations left out. */
  closure(packages: readonly string[]): string[]
  dependencies(name: string): string[]
  /** Fetches exactly these packages and unpacks all of them into `folder`. */
  unpack(packages: readonly string[], folder: string): void
}

export function hasApt(): boolean {
  return isExecutable(APT_GET)
}

/** Reads the machine's package sources into a private folder; its own lists and packages are left as they are. */
export function openApt(): Apt {
  const folder = join(unfinished, "apt")
  const run = aptRunner(folder)
  // One unreachable third-party source fails the update as a whole; what counts is whether our packages are found.
  const update = run(APT_GET, ["update"])
  const read = (tool: string, words: readonly string[], cwd?: string): string => {
    const result = run(tool, words, cwd)
    if (result.status === 0) return result.stdout
    const reasons = [firstComplaint(result.stderr), firstComplaint(update.stderr)].filter(
      (reason) => reason !== "",
    )
    throw new SetupProblem(reasons.join("; ") || `${tool} ended with ${result.status ?? result.signal}`)
  }

  return {
    closure: (packages) => {
      const plan = read(APT_GET, ["install", "--simulate", "--no-install-recommends", ...packages])
      const added = plan.split("\n").flatMap((line) => /^Inst (\S+)/.exec(line)?.[1] ?? [])
      return [...new Set([...packages, ...added])].filter((name) => !neverReplaced.has(name))
    },
    dependencies: (name) => {
      const lines = read(APT_CACHE, ["depends", "--important", name]).split("\n")
      return lines.flatMap((line) => /^[ |]*(?:Pre)?Depends: (\S+)/.exec(line)?.[1] ?? [])
    },
    unpack: (packages, target) => {
      const archives = join(folder, "archives")
      mkdirSync(archives, { recursive: true })
      mkdirSync(target, { recursive: true })
      read(APT_GET, ["download", ...packages], archives)
      for (const archive of readdirSync(archives)) unpackArchive(join(archives, archive), target)
      rmSync(archives, { recursive: true })
    },
  }
}

interface Result {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

function aptRunner(folder: string) {
  mkdirSync(join(folder, "state", "lists", "partial"), { recursive: true })
  mkdirSync(join(folder, "cache", "archives", "partial"), { recursive: true })
  const config = join(folder, "apt.conf")
  const places = [
    ["Dir::State", "state"],
    ["Dir::Cache", "cache"],
    ["Dir::Log", "log"],
  ]
  const lines = places.map(([key, name]) => `${key} "${folder}/${name}";\n`)
  writeFileSync(config, `${privateSettings}${lines.join("")}`)

  return (tool: string, words: readonly string[], cwd = folder): Result => {
    const env = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" }
    return spawnSync(tool, ["-c", config, "-qq", ...words], {
      cwd,
      encoding: "utf8",
      env,
      stdio: ["ignore", "pipe", "pipe"],
    })
  }
}

function unpackArchive(archive: string, target: string): void {
  const result = spawnSync("/usr/bin/dpkg", ["-x", archive, target], { encoding: "utf8" })
  if (result.status !== 0) throw new SetupProblem(`${archive} could not be unpacked: ${result.stderr.trim()}`)
}

function firstComplaint(stderr: string): string {
  return (
    stderr
      .split("\n")
      .find((line) => /^[EW]: /.test(line))
      ?.trim() ?? ""
  )
}
