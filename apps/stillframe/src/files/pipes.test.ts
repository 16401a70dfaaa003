import { execFileSync, spawn, spawnSync, type SpawnSyncReturns } from "node:child_process"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import {
  chmod,
  lstat,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { compressing, decompressing } from "./commands.ts"

const main = join(import.meta.dirname, "../main.ts")
const mib = 1024 ** 2
const content = Buffer.concat([randomBytes(2 * mib), Buffer.alloc(mib)])

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-pipes-"))
  await writeFile(join(dir, "memory"), content)
})
afterEach(() => rm(dir, { recursive: true }))

const work = { signal: new AbortController().signal, onProgress: () => undefined }

/** Makes `packed` of `memory`, in this process. */
async function pack(): Promise<void> {
  await compressing(join(dir, "memory"), { algorithm: "zstd", output: join(dir, "packed") }, work)
}

/** Runs a script in bash, in which `stillframe` is the command line. */
function bash(script: string): SpawnSyncReturns<Buffer> {
  const command = `set -o pipefail; stillframe() { "${process.execPath}" "${main}" "$@"; }; ${script}`
  return spawnSync("bash", ["-c", command], { cwd: dir, maxBuffer: 64 * mib })
}

test("compressed bytes and content go through pipes", () => {
  const { stdout, status } = bash("stillframe compress memory -o - | stillframe decompress - -o -")

  expect(status).toBe(0)
  expect(stdout.equals(content)).toBe(true)
})

test("process substitutions are read and written", async () => {
  await pack()

  const { status } = bash("stillframe decompress <(cat packed) -o >(cat > back; : > done)")
  await vi.waitUntil(async () => (await readdir(dir)).includes("done"))

  expect(status).toBe(0)
  expect((await readFile(join(dir, "back"))).equals(content)).toBe(true)
})

test("--force leaves a device and the link to it what they are", async () => {
  await symlink("/dev/null", join(dir, "null"))

  const { status } = bash(
    "stillframe compress memory -o null --force && stillframe compress memory -o packed && stillframe decompress packed -o null --force",
  )

  expect(status).toBe(0)
  expect((await lstat(join(dir, "null"))).isSymbolicLink()).toBe(true)
  expect((await stat("/dev/null")).isCharacterDevice()).toBe(true)
})

test.each(["-", ".", "pipe"])("compress refuses %s, whose size it cannot know", async (source) => {
  execFileSync("mkfifo", [join(dir, "pipe")])
  const path = source === "-" ? source : join(dir, source)

  await expect(compressing(path, { algorithm: "zstd", output: join(dir, "packed") }, work)).rejects.toThrow(
    /not a regular file|is a directory/,
  )
})

test("a full device is said to be full, with status 1", async () => {
  await pack()

  const { status, stderr } = bash("stillframe decompress packed -o /dev/full")

  expect(status).toBe(1)
  expect(stderr.toString()).toContain("ENOSPC: no space left on device")
})

test.each([
  ["> /dev/full", "1 no room is left; free some space (ENOSPC: no space left on device, write)\n"],
  ["| true", "0 "],
])("a result that cannot be printed %s leaves no stack trace", async (redirection, expected) => {
  await pack()

  const { stdout, stderr } = bash(`stillframe verify packed ${redirection}; echo "\${PIPESTATUS[0]}"`)

  expect(`${stdout.toString().trim()} ${stderr.toString()}`).toBe(expected)
})

test.each([
  ["cat packed >&-", "standard output is closed"],
  ["decompress packed -o - >&-", "standard output is closed"],
  ["compress memory -o - >&-", "standard output is closed"],
  ["token >&-", "standard output is closed"],
  ["verify - <&-", "standard input is closed"],
  ["token > /dev/full", "no room is left"],
])("stillframe %s fails in one line with status 1", async (words, reason) => {
  await pack()

  const { status, stderr } = bash(`JWT_SECRET=${"s".repeat(32)} stillframe ${words}`)

  expect(status).toBe(1)
  expect(stderr.toString()).toMatch(new RegExp(`^[^\n]*${reason}[^\n]*\n$`))
})

test("compress ends without a word when its reader has seen enough", () => {
  const { stdout, stderr } = bash('stillframe compress memory -o - | true; echo "${PIPESTATUS[0]}"')

  expect(`${stdout.toString()}${stderr.toString()}`).toBe("0\n")
})

test("the output is for those whom the source was for, and may have a name of 255 bytes", async () => {
  await chmod(join(dir, "memory"), 0o600)
  const name = "n".repeat(255)

  await compressing(join(dir, "memory"), { algorithm: "zstd", output: join(dir, name) }, work)
  await decompressing(join(dir, name), { output: join(dir, "back") }, work)

  for (const made of [name, "back"]) expect((await stat(join(dir, made))).mode & 0o777).toBe(0o600)
})

test("SIGTERM leaves nothing", async () => {
  await writeFile(join(dir, "memory"), randomBytes(64 * mib))
  const args = [main, "compress", "--level", "19", "memory", "-o", "out"]
  const child = spawn(process.execPath, args, { cwd: dir, stdio: "ignore" })
  const ended = once(child, "close")
  await vi.waitUntil(async () => (await readdir(dir)).some((name) => name.endsWith(".partial")), {
    timeout: 20_000,
  })

  child.kill("SIGTERM")

  expect((await ended)[0]).toBe(143)
  expect(await readdir(dir)).toEqual(["memory"])
})

test("Ctrl-C ends a wait for a reader", async () => {
  await pack()
  const child = spawn(process.execPath, [main, "cat", "packed"], {
    cwd: dir,
    stdio: ["ignore", "pipe", "ignore"],
  })
  const ended = once(child, "exit")
  // No more is read than this event took.
  await once(child.stdout, "readable")

  child.kill("SIGINT")

  expect([
    [130, null],
    [null, "SIGINT"],
  ]).toContainEqual(await ended)
})

const strace = spawnSync("strace", ["true"]).status === 0 ? "" : " (skipped: strace does not work here)"

test.skipIf(strace !== "")(`a file system without hard links takes an output${strace}`, async () => {
  const { status } = bash(
    `strace -f -qq -o /dev/null -e trace=link -e inject=link:error=EPERM "${process.execPath}" "${main}" compress memory -o packed && stillframe verify packed`,
  )

  expect(status).toBe(0)
  expect((await readdir(dir)).toSorted()).toEqual(["memory", "packed"])
})

const noMount =
  spawnSync("unshare", ["-rm", "mount", "-t", "tmpfs", "none", tmpdir()]).status === 0
    ? ""
    : " (skipped: no mounts in a namespace)"

test.skipIf(noMount !== "").each([
  ["among the frames", "memory", mib],
  // 4,096 frames take more than 64 KiB, and their table 48 KiB.
  ["in the seek table", "holes", 128 * 1024],
])(
  `a file system that becomes full %s keeps nothing of the output${noMount}`,
  async (_where, source, bytes) => {
    await using holes = await open(join(dir, "holes"), "w")
    await holes.truncate(1024 * mib)
    const mount = `mkdir small && mount -t tmpfs -o size=${bytes} none small`
    const run = `"${process.execPath}" "${main}" compress ${source} -o small/out; echo "status $?"; ls -A small`

    const { stdout, stderr } = bash(`unshare -rm bash -c '${mount} && ${run}'`)

    expect(stdout.toString()).toBe("status 1\n")
    expect(stderr.toString()).toContain("ENOSPC")
  },
)

const noLoop =
  process.getuid?.() === 0 && spawnSync("losetup", ["-f"]).status === 0
    ? ""
    : " (skipped: no loop devices, or not root)"

test.skipIf(noLoop !== "")(
  `zeros overwrite what a block device held, and a small one is left alone${noLoop}`,
  async () => {
    const attach = async (name: string, bytes: number): Promise<string> => {
      await writeFile(join(dir, name), Buffer.alloc(bytes, 0xff))
      return execFileSync("losetup", ["-f", "--show", join(dir, name)], { encoding: "utf8" }).trim()
    }
    await pack()
    const devices = [await attach("large-disk", 4 * mib), await attach("small-disk", mib)]
    try {
      const [large = "", small = ""] = devices
      const onto = (output: string, force: boolean): Promise<string | undefined> =>
        decompressing(join(dir, "packed"), { output, force }, work)
      await expect(onto(large, false)).rejects.toThrow("give --force")
      await onto(large, true)
      await expect(onto(small, true)).rejects.toThrow("is smaller than")
    } finally {
      for (const device of devices) execFileSync("losetup", ["-d", device])
    }
    await using disk = await open(join(dir, "large-disk"))
    const { buffer } = await disk.read(Buffer.alloc(content.length), 0, content.length, 0)
    expect(buffer.equals(content)).toBe(true)
    expect((await readFile(join(dir, "small-disk"))).equals(Buffer.alloc(mib, 0xff))).toBe(true)
  },
)
