import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Apt, hasApt, openApt, openBackports } from "./setup/apt.ts"
import { buildGuests, fetchDemoGuest, isDemoGuestFetched } from "./setup/demo-guest.ts"
import { tools, unfinished } from "./setup/paths.ts"
import { SetupProblem } from "./setup/problem.ts"
import {
  bringProgram,
  btrfs,
  isProgramReady,
  isQemuAtLeast,
  type Program,
  qemu,
  qemu10,
  redis,
} from "./setup/programs.ts"

// Finds or fetches what `npm start`, `npm run demo` and `npm test` run beside Node. Called by with-node.mjs,
// which holds the set-up's lock: two at once wait for each other, and a killed one left its waste in
// `unfinished` only.

const programsOf: Readonly<Record<string, readonly Program[]>> = {
  start: [qemu],
  demo: [qemu],
  test: [qemu, redis],
}

/** What nothing but some tests needs. */
interface ForTests {
  readonly program: Program
  readonly tests: string
  /** Undefined where the run's own will do, or where those tests can't run anyway. */
  readonly source: (apt: () => Apt) => (() => Apt) | undefined
}

const forTests: readonly ForTests[] = [
  {
    program: qemu10,
    tests: "live capture",
    source: () => (isQemuAtLeast(10) ? undefined : openBackports),
  },
  {
    program: btrfs,
    tests: "disks that share blocks",
    // Only root can mount what it makes.
    source: (apt) => (process.getuid?.() === 0 ? apt : undefined),
  },
]

const dayMs = 24 * 60 * 60 * 1000

try {
  setUp(process.argv[2] ?? "")
} catch (thrown) {
  if (!(thrown instanceof SetupProblem)) throw thrown
  console.error(thrown.message)
  process.exitCode = 1
}

function setUp(mode: string): void {
  const programs = programsOf[mode]
  if (programs === undefined)
    throw new SetupProblem(`"${mode}" is not one of: ${Object.keys(programsOf).join(", ")}`)
  rmSync(unfinished, { recursive: true, force: true })
  mkdirSync(unfinished, { recursive: true })
  let opened: Apt | undefined
  const apt = (): Apt => (opened ??= openApt())

  for (const program of programs) {
    if (!isProgramReady(program)) fetching(program.packages, () => bringProgram(program, apt))
  }
  if (mode === "test") for (const each of forTests) bringForTests(each, apt)
  if (!isDemoGuestFetched())
    fetching(["linux-image-cloud-amd64", "busybox-static"], () => fetchDemoGuest(apt))
  buildGuests()
  rmSync(unfinished, { recursive: true, force: true })
}

/** Some tests are skipped without it. */
function bringForTests({ program, tests, source }: ForTests, apt: () => Apt): void {
  if (isProgramReady(program)) return
  const missing = join(tools, `${program.folder}.missing`)
  const open = hasApt() && !isRecent(missing, dayMs) ? source(apt) : undefined
  if (open === undefined) return
  try {
    bringProgram(program, open)
  } catch (thrown) {
    if (!(thrown instanceof SetupProblem)) throw thrown
    // Without a network each try takes long: the next one is tomorrow's.
    writeFileSync(missing, `${thrown.message}\n`)
    console.error(
      `  ${program.title} could not be fetched (${thrown.message}): the tests of ${tests} are skipped. Remove ${missing} to try again.`,
    )
  }
}

function isRecent(path: string, ms: number): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats !== undefined && Date.now() - stats.mtimeMs < ms
}

function fetching(packages: readonly string[], work: () => void): void {
  const names = packages.join(" ")
  if (process.platform === "darwin")
    throw new SetupProblem(`QEMU is not on PATH: run \`brew install qemu\` and try again.`)
  if (!hasApt()) {
    throw new SetupProblem(
      `This machine has no apt-get to fetch ${names} with: install them by its own package manager.`,
    )
  }
  try {
    work()
  } catch (thrown) {
    if (!(thrown instanceof SetupProblem)) throw thrown
    throw new SetupProblem(
      `${names} could not be fetched (${thrown.message}). Try again with a network, or run \`sudo apt-get install --no-install-recommends ${names}\`.`,
    )
  }
}
