import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { expect, test } from "vitest"

const apps = join(import.meta.dirname, "..", "..", "..", "apps")
/** Stands for a Node that could not even read a .ts file. */
const oldNode = `data:text/javascript,Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.20.2" } })`

test.each(["api", "capture-worker", "compression-worker", "dispatcher", "stillframe"])(
  "%s says in one sentence that Node is too old",
  (app) => {
    const { status, stderr } = spawnSync(
      process.execPath,
      ["--import", oldNode, join(apps, app, "main.mjs")],
      {
        encoding: "utf8",
      },
    )

    expect(stderr).toMatch(
      /^Stillframe needs Node 24\.12 or later and this is Node 20\.20\.2: install Node 24.*\n$/,
    )
    expect(status).toBe(1)
  },
)

test("a Node that is recent enough runs the app", () => {
  const { status, stdout } = spawnSync(process.execPath, [join(apps, "stillframe", "main.mjs"), "--help"], {
    encoding: "utf8",
  })

  expect(stdout).toMatch(/^Usage: stillframe/)
  expect(status).toBe(0)
})
