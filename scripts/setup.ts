import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Apt, hasApt, openApt, openBackports } from "./setup/apt.ts"
import { buildGuests, fetchDemoGuest, isDemoGuestFetched } from "./setup/demo-guest.ts"
import { tools, unfinished } from "./setup/paths.ts"
import { SetupProblem } from "./setup/problem.ts"
import {
  bringProgram,
  isProgramReady,
  isQemuAtLeast,
  type Program,
  qemu,
  qemu10,
  redis,
} from "./setup/programs.ts"

// Finds or fetches what `npm start`, `npm run demo` and `npm test` run beside Node. Called by with-node.mjs, which
// holds the set-up's lock: two at once wait for each other, and a killed one left its waste in `unfinished` only.

const programsOf: Readonly<Record<string, readonly Program[]>> = {
  start: [qemu],
  demo: [qemu],
  test: [qemu, redis],
}

const qemu10Missing = join(tools, "qemu-10.missing")
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
  if (mode === "test" && !isProgramReady(qemu10)) bringQemu10()
  if (!isDemoGuestFetched())
    fetching(["linux-image-cloud-amd64", "busybox-static"], () => fetchDemoGuest(apt))
  buildGuests()
  rmSync(unfinished, { recursive: true, force: true })
}

/** Some tests are skipped without it; nothing else needs it. */
function bringQemu10(): void {
  if (!hasApt() || isQemuAtLeast(10) || isRecent(qemu10Missing, dayMs)) return
  try {
    bringProgram(qemu10, openBackports)
  } catch (thrown) {
    if (!(thrown instanceof SetupProblem)) throw thrown
    // Without a network each try takes long: the next one is tomorrow's.
    writeFileSync(qemu10Missing, `${thrown.message}\n`)
    console.error(
      `  QEMU 10 could not be fetched (${thrown.message}): the tests of live capture are skipped. Remove ${qemu10Missing} to try again.`,
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
