import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { isExecutable } from "./executables.ts"
import { unfinished } from "./paths.ts"
import { SetupProblem } from "./problem.ts"

const APT_GET = "/usr/bin/apt-get"
const APT_CACHE = "/usr/bin/apt-cache"
const SOURCES = "/etc/apt/sources.list"
const DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

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
  /**
   * What installing `packages` would add to this machine, themselves included and recommendations left out.
   */
  closure(packages: readonly string[]): string[]
  dependencies(name: string): string[]
  /** Fetches exactly these packages and unpacks all of them into `folder`. */
  unpack(packages: readonly string[], folder: string): void
}

export function hasApt(): boolean {
  return isExecutable(APT_GET)
}

/**
 * Reads the machine's package sources into a private folder; its own lists and packages are left as they are.
 */
export function openApt(): Apt {
  return openAptIn(join(unfinished, "apt"), "")
}

/**
 * The same with Debian's backports of the running release preferred, from the mirror that the machine has the
 * release itself from. Throws where the machine runs another distribution.
 */
export function openBackports(): Apt {
  const release = runningDebian()
  const folder = join(unfinished, "backports")
  mkdirSync(folder, { recursive: true })
  const sources = join(folder, "sources.list")
  const own = existsSync(SOURCES) ? readFileSync(SOURCES, "utf8") : ""
  const signedBy = existsSync(DEBIAN_KEYS) ? `[signed-by=${DEBIAN_KEYS}] ` : ""
  writeFileSync(sources, `${own}\ndeb ${signedBy}${mirrorOf(release)} ${release}-backports main\n`)
  return openAptIn(
    folder,
    `Dir::Etc::sourcelist "${sources}";\nAPT::Default-Release "${release}-backports";\n`,
  )
}

function runningDebian(): string {
  const facts = readFileSync("/etc/os-release", "utf8")
  const release = /^VERSION_CODENAME=(\w+)$/m.exec(facts)?.[1]
  if (!/^ID=debian$/m.test(facts) || release === undefined)
    throw new SetupProblem("only Debian has backports of it")
  return release
}

/** Behind a firewall the machine's own mirror is often the only one that can be reached. */
function mirrorOf(release: string): string {
  const format = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
  const listed = spawnSync(APT_GET, ["indextargets", ...format], { encoding: "utf8" }).stdout
  const main = listed.split("\n").find((line) => line.endsWith(` ${release} main`))
  return main?.split(" ")[0] ?? "http://deb.debian.org/debian"
}

function openAptIn(folder: string, settings: string): Apt {
  const run = aptRunner(folder, settings)
  // One unreachable third-party source fails the update as a whole; what counts is whether our packages are
  // found.
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
      // A download that failed in the middle may have left some, of another program.
      rmSync(archives, { recursive: true, force: true })
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

function aptRunner(folder: string, settings: string) {
  mkdirSync(join(folder, "state", "lists", "partial"), { recursive: true })
  mkdirSync(join(folder, "cache", "archives", "partial"), { recursive: true })
  const config = join(folder, "apt.conf")
  const places = [
    ["Dir::State", "state"],
    ["Dir::Cache", "cache"],
    ["Dir::Log", "log"],
  ]
  const lines = places.map(([key, name]) => `${key} "${folder}/${name}";\n`)
  writeFileSync(config, `${privateSettings}${lines.join("")}${settings}`)

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
