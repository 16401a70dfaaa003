import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { processEnv } from "@stillframe/runtime/env"
import { expect, test } from "vitest"
import { missingRights } from "./root-rights.ts"

const isRoot = process.getuid?.() === 0
const main = join(import.meta.dirname, "../main.ts")
/** What Docker gives a container's root where nothing else is asked for. */
const dockers = "00000000a80425fb"

const namesIn = (effective: string): string[] =>
  missingRights(`Name:\tnode\nCapEff:\t${effective}\nCapBnd:\t${effective}\n`).map(({ name }) => name)

test("Docker's own set of capabilities lacks one, all of them lack none, and none lacks all", () => {
  expect(namesIn(dockers)).toEqual(["SYS_PTRACE"])
  expect(namesIn("000001ffffffffff")).toEqual([])
  expect(namesIn("0000000000000000")).toHaveLength(7)
})

test.skipIf(!isRoot).each([
  ["-sys_ptrace", ["CAP_SYS_PTRACE"]],
  ["-kill,-setuid", ["CAP_KILL", "CAP_SETUID"]],
])("a worker that is root with %s does not start, and says which one to add", (dropped, names) => {
  const started = spawnSync("setpriv", ["--bounding-set", dropped, process.execPath, main], {
    env: { PATH: processEnv()["PATH"], DATABASE_URL: "postgres://localhost/test", STOP_GRACE: "99" },
    encoding: "utf8",
  })

  expect(started.status).toBe(1)
  const { msg } = JSON.parse(started.stderr.split("\n")[0] ?? "") as { msg: string }
  const lines = msg.split("\n").slice(1)
  // With the other mistakes, before anything is opened.
  expect(lines.map((line) => line.trim().split(":")[0])).toEqual(["STOP_GRACE", ...names])
  for (const name of names)
    expect(msg).toMatch(
      new RegExp(`${name}: .+cap_add: \\[${name.slice(4)}\\].+or run the worker as another user`),
    )
})
