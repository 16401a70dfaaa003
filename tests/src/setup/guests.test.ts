import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, open, readFile, rm, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { afterEach, beforeEach, expect, test } from "vitest"

const checkout = join(import.meta.dirname, "..", "..", "..")
const sources = join(checkout, "packages", "hypervisors", "guests")
const guests = join(checkout, ".tools", "guests")
const toolsBin = join(checkout, ".tools", "bin")

const builders = ["gcc", "ld", "objcopy"].filter((tool) => spawnSync(tool, ["--version"]).status !== 0)
const cannotBuild =
  process.arch === "x64" && builders.length === 0 ? "" : `: skipped, no ${builders.join(", ") || "x86-64"}`

let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-guest-"))
})

afterEach(async () => {
  await rm(dir, { recursive: true })
})

test.skipIf(cannotBuild !== "")(
  `the committed heartbeat is what its source builds to${cannotBuild}`,
  async () => {
    const object = join(dir, "heartbeat.o")
    const built = join(dir, "heartbeat.elf")

    execFileSync("gcc", ["-c", join(sources, "heartbeat.S"), "-o", object])
    const link = [
      "-m",
      "elf_x86_64",
      "--build-id=none",
      "-Ttext=0x100000",
      "-e",
      "start",
      "-o",
      built,
      object,
    ]
    execFileSync("ld", link)

    // Versions of ld lay the file out differently; what the guest is lies in these sections and the entry
    // point.
    for (const section of [".text", ".note.PVH"]) {
      expect(await sectionOf(built, section)).toEqual(
        await sectionOf(join(sources, "heartbeat.elf"), section),
      )
    }
    expect(await entryPoint(built)).toBe(await entryPoint(join(sources, "heartbeat.elf")))
  },
)

test("the heartbeat boots and counts with a sum that stays", async () => {
  await using guest = boot(["-M", "q35,accel=tcg", "-m", "64", "-kernel", join(guests, "heartbeat.elf")])

  const lines = await guest.lines((line) => /^[0-9a-f]{8} [0-9a-f]{8}$/.test(line), 3)

  expect(lines.map((line) => line.split(" ")[0])).toEqual(["00000001", "00000002", "00000003"])
  expect(new Set(lines.map((line) => line.split(" ")[1])).size).toBe(1)
})

test("the demo guest boots Linux, counts, keeps its memory, and leaves its count on its disk", async () => {
  const disk = join(dir, "disk.raw")
  await writeFile(disk, "")
  await truncate(disk, 4 << 20)
  const kernel = join(guests, "demo", "vmlinuz")
  const initramfs = join(guests, "demo", "initramfs.cpio.gz")
  const machine = [
    "-M",
    "q35,accel=tcg",
    "-cpu",
    "qemu64",
    "-m",
    "256",
    "-kernel",
    kernel,
    "-initrd",
    initramfs,
  ]
  const blockdev = `driver=raw,node-name=d0,file.driver=file,file.filename=${disk}`
  const drive = ["-blockdev", blockdev, "-device", "virtio-blk-pci,drive=d0,id=vd0"]
  await using guest = boot([...machine, ...drive, "-append", "console=ttyS0 panic=1 quiet random_mib=1"])

  const [hello = ""] = await guest.lines((line) => line.startsWith("BOOT_ID "), 1)
  const counts = (await guest.lines((line) => line.startsWith("COUNT "), 9)).map((line) => line.split(" "))

  expect(counts.map(([, count]) => count)).toEqual(["1", "2", "3", "4", "5", "6", "7", "8", "9"])
  expect(new Set(counts.map(([, , sum]) => sum)).size).toBe(1)
  expect(new Set(counts.map(([, , , bootId]) => bootId))).toEqual(new Set([hello.split(" ")[1]]))
  expect(await lastWord(disk)).toBe(`COUNT 8 ${hello.split(" ")[1]}`)
})

function boot(words: readonly string[]) {
  const options = ["-smp", "1", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
  // As the stack finds it: the machine's own first, else what the set-up brought.
  const search = 'PATH="$PATH:$0" exec qemu-system-x86_64 "$@"'
  const child: ChildProcess = spawn("/bin/sh", ["-c", search, toolsBin, ...words, ...options], {
    stdio: ["ignore", "pipe", "inherit"],
  })
  if (child.stdout === null) throw new Error("the guest's serial port is not a pipe")
  const serial = createInterface(child.stdout)[Symbol.asyncIterator]()
  return {
    /** The next `count` lines that match; one that does not is the kernel's or the firmware's. */
    async lines(matches: (line: string) => boolean, count: number): Promise<string[]> {
      const found: string[] = []
      while (found.length < count) {
        const { value, done } = await serial.next()
        if (done === true) throw new Error("the guest ended")
        if (matches(value.trim())) found.push(value.trim())
      }
      return found
    },
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill("SIGKILL")
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
    },
  }
}

async function lastWord(disk: string): Promise<string> {
  await using file = await open(disk)
  const { buffer } = await file.read(Buffer.alloc(512), 0, 512, 1 << 20)
  return buffer.toString().trim()
}

async function sectionOf(elf: string, section: string): Promise<Buffer> {
  const dump = join(dir, "section")
  execFileSync("objcopy", [`--dump-section=${section}=${dump}`, elf, join(dir, "unused")])
  return readFile(dump)
}

/** e_entry of a 64-bit ELF header. */
async function entryPoint(elf: string): Promise<bigint> {
  return (await readFile(elf)).readBigUInt64LE(24)
}
