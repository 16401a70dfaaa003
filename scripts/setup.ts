import { mkdirSync, rmSync } from "node:fs"
import { type Apt, hasApt, openApt } from "./setup/apt.ts"
import { buildGuests, fetchDemoGuest, isDemoGuestFetched } from "./setup/demo-guest.ts"
import { unfinished } from "./setup/paths.ts"
import { SetupProblem } from "./setup/problem.ts"
import { bringProgram, isProgramReady, type Program, qemu, redis } from "./setup/programs.ts"

// Finds or fetches what `npm start`, `npm run demo` and `npm test` run beside Node. Called by with-node.mjs, which
// holds the set-up's lock: two at once wait for each other, and a killed one left its waste in `unfinished` only.

const programsOf: Readonly<Record<string, readonly Program[]>> = {
  start: [qemu],
  demo: [qemu],
  test: [qemu, redis],
}

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
  if (!isDemoGuestFetched())
    fetching(["linux-image-cloud-amd64", "busybox-static"], () => fetchDemoGuest(apt))
  buildGuests()
  rmSync(unfinished, { recursive: true, force: true })
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
