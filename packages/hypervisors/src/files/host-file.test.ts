import { execFileSync } from "node:child_process"
import { childEnv } from "@stillframe/domain/child-env"
import { expect, test } from "vitest"

test("a caller's file is not to blame when this process has no file descriptor left", () => {
  const script = `
    import { openSync } from "node:fs"
    import { openHostFileAt } from ${JSON.stringify(import.meta.resolve("./host-file.ts"))}
    for (let open = true; open; ) try { openSync("/dev/null") } catch { open = false }
    const thrown = await openHostFileAt("/etc/hostname").catch((error) => error)
    process.stdout.write(thrown.code)`
  const limited = ["-c", 'ulimit -n 64; exec "$0" --input-type=module -e "$1"', process.execPath, script]

  const code = execFileSync("sh", limited, { encoding: "utf8", env: childEnv() })

  expect(code).toBe("EMFILE")
})
