import { execFile, spawnSync } from "node:child_process"
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, test } from "vitest"

const run = promisify(execFile)
const strace = spawnSync("strace", ["true"]).status === 0 ? "" : " (skipped: strace does not work here)"

const program = `
  const [dir] = process.argv.slice(1)
  const { linkFiles } = await import(${JSON.stringify(import.meta.resolve("@stillframe/hypervisors/files/link-files"))})
  const { createDurably } = await import(${JSON.stringify(import.meta.resolve("@stillframe/storage/durable"))})
  await linkFiles(["layer"], dir + "/from", dir + "/to", new AbortController().signal)
  await createDurably(dir + "/to/pool.json", "first")
  await createDurably(dir + "/to/pool.json", "second")
`

test.skipIf(strace !== "").each(["EPERM", "EOPNOTSUPP", "ENOSYS"])(
  `where links fail with %s, layers are copied and a pool's file is made once${strace}`,
  async (errno) => {
    const dir = await mkdtemp(join(tmpdir(), "stillframe-links-"))
    await Promise.all(["from", "to"].map((name) => mkdir(join(dir, name))))
    await writeFile(join(dir, "from", "layer"), "content")
    const links = ["-e", "trace=?link,linkat", "-e", `inject=?link,linkat:error=${errno}`]

    const node = [process.execPath, "--input-type=module", "-e", program, dir]
    await run("strace", ["-f", "-qq", "-o", "/dev/null", ...links, ...node])

    const to = join(dir, "to")
    expect((await readdir(to)).toSorted()).toEqual(["layer", "pool.json"])
    expect(await readFile(join(to, "layer"), "utf8")).toBe("content")
    expect((await stat(join(dir, "from", "layer"))).nlink).toBe(1)
    expect(await readFile(join(to, "pool.json"), "utf8")).toBe("first")
    await rm(dir, { recursive: true })
  },
)
