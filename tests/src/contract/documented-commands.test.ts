import { execFile } from "node:child_process"
import { globSync } from "node:fs"
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { delimiter, isAbsolute, join } from "node:path"
import { promisify } from "node:util"
import { removeEmbeddedPostgres } from "@stillframe/embedded-postgres/cluster"
import { findProgram } from "@stillframe/runtime/find-program"
import { createLogger } from "@stillframe/runtime/logger"
import { startStack, type Stack } from "@stillframe/stillframe/stack/stack"
import { afterAll, beforeAll, expect, test } from "vitest"
import { request } from "../api/test-api.ts"
import { endVms } from "../pipeline/end-vms.ts"
import { exampleIn, pagesWithCommands, type Commands } from "./page-commands.ts"

// The commands of the README and the guides, in order, as a reader types them beside `npm start`.

const run = promisify(execFile)
const checkout = join(import.meta.dirname, "../../..")
const path = process.env["PATH"] ?? ""
const curl = findProgram("curl", path)
// Live capture needs the newer one.
const qemu = ["qemu-system-x86_64-10", "qemu-system-x86_64"]
  .map((name) => findProgram(name, path))
  .find(isAbsolute)

/** Programs that stand before the real ones: they make a command fail that a reader would see fail. */
const programs: Readonly<Record<string, string>> = {
  // A stream has no end.
  curl: `real() { "${curl}" --fail-with-body --silent --show-error "$@"; }
case " $* " in
*" -N "*) real --max-time 2 "$@" || [ $? = 28 ] ;;
*) real --max-time 90 "$@" ;;
esac`,
  npx: `shift; exec "${process.execPath}" "${join(checkout, "apps/stillframe/main.mjs")}" "$@"`,
  node: `exec "${process.execPath}" "$@"`,
  "qemu-system-x86_64": `exec "${qemu}" "$@"`,
}

let dir: string
let stack: Stack
const opened = new AsyncDisposableStack()
beforeAll(async () => {
  // Under the tests, so that the client's example finds its library.
  dir = await mkdtemp(join(import.meta.dirname, "commands-"))
  opened.defer(() => rm(dir, { recursive: true }))
  await mkdir(join(dir, "bin"))
  for (const [name, script] of Object.entries(programs)) {
    await writeFile(join(dir, "bin", name), `#!/bin/sh\n${script}\n`)
    await chmod(join(dir, "bin", name), 0o755)
  }
  const dataDir = join(dir, ".stillframe")
  opened.defer(() => removeEmbeddedPostgres(join(dataDir, "postgres")))
  const wrapped = globSync(join(checkout, ".tools/qemu*/usr/bin/qemu-system-x86_64"))
  const env = {
    PATH: path,
    PORT: "0",
    DATA_DIR: dataDir,
    QEMU_BINARY: qemu,
    QEMU_ACCELERATOR: "tcg",
    // The demo's guest knows no power button.
    STOP_GRACE: "0",
    ...(wrapped.length > 0 && { ATTACH_BINARIES: wrapped.join(":") }),
  }
  stack = opened.use(await startStack(env, createLogger({ service: "test", level: "silent" })))
  const { id } = JSON.parse(await readFile(join(dataDir, "cluster.json"), "utf8"))
  opened.defer(() => endVms(id))
})
afterAll(() => opened.disposeAsync())

const pages = [...pagesWithCommands()]

test("there are pages with commands", () => {
  expect(pages.map(([page]) => page)).toEqual(expect.arrayContaining(["README.md", "docs/launch.md"]))
})

test.skipIf(!isAbsolute(curl)).for(pages)("the commands of %s", async ([page, blocks], { skip }) => {
  const offered = await features()
  const runnable = blocks.filter((block) => {
    const reason = obstacle(block, offered)
    if (reason !== undefined) console.warn(`skipped: ${block.at}: ${reason}`)
    return reason === undefined
  })
  skip(runnable.length === 0, "every block says why it cannot run")
  const cwd = join(dir, page.replaceAll("/", "-"))
  await mkdir(cwd)
  await symlink(stack.dataDir, join(cwd, ".stillframe"))

  const ended = await shell(runnable, cwd)

  expect(ended).toEqual({ status: 0, output: expect.any(String) })
})

test("the client's example in README.md", async () => {
  const file = join(dir, "example.ts")
  await writeFile(file, exampleIn("README.md", "ts").replace("http://127.0.0.1:8080", stack.url))
  const env = { PATH: path, TOKEN: await token() }

  const { stdout } = await run(process.execPath, [file], { env })

  expect(stdout).toBe("Running\n")
})

/** Of the host, as pages name them. */
async function features(): Promise<ReadonlySet<string>> {
  const { body } = await request(stack.url, "GET", "/capabilities", {
    claims: null,
    headers: { authorization: `Bearer ${await token()}` },
  })
  return new Set(body.hosts[0].hypervisors.qemu.live_capture === true ? ["live capture"] : [])
}

function obstacle({ notRun, needs }: Commands, offered: ReadonlySet<string>): string | undefined {
  if (notRun !== undefined) return notRun
  return needs === undefined || offered.has(needs) ? undefined : `this host does not offer ${needs}`
}

/**
 * Runs blocks in one shell, up to the first command that fails; the last place in its output is that block's.
 */
async function shell(
  blocks: readonly Commands[],
  cwd: string,
): Promise<{ readonly status: unknown; readonly output: string }> {
  const env = { PATH: [join(dir, "bin"), path].join(delimiter), DATA_DIR: stack.dataDir }
  const script = blocks.map(({ at, text }) => `echo "# ${at}" >&2\n${text}`).join("\n")
  return run("sh", ["-euc", script.replaceAll("http://127.0.0.1:8080", stack.url)], { cwd, env }).then(
    ({ stdout, stderr }) => ({ status: 0, output: stderr + stdout }),
    ({ code, stdout, stderr }) => ({ status: code, output: stderr + stdout }),
  )
}

const token = (): Promise<string> => readFile(stack.tokenFile, "utf8")
