import { spawnSync } from "node:child_process"
import { readFile } from "node:fs/promises"
import { expect, test } from "vitest"
import { parse } from "yaml"

const root = new URL("../../../", import.meta.url)

interface Compose {
  readonly services: Readonly<Record<string, { command?: unknown; environment?: Record<string, string> }>>
}

/** In a mount namespace of its own, where the entry point's directories may be made. */
const unshare = ["--user", "--map-root-user", "--mount", "sh", "-euc"]
const isolated = spawnSync("unshare", [...unshare, "mount -t tmpfs none /run"]).status === 0

test.skipIf(!isolated)("each container of the stack gets the password that its Redis asks for", async () => {
  const { services } = parse(await readFile(new URL("docker-compose.yml", root), "utf8"), {
    merge: true,
  }) as Compose
  expect(JSON.stringify(services["redis"]?.command)).toMatch(
    /--requirepass .*cat \/run\/stillframe\/database\/redis-password/,
  )
  const server = services["capture-worker"]?.environment?.["REDIS_SERVER"] ?? ""
  const script = `
    mount -t tmpfs none /run
    mkdir -p /run/stillframe/api /run/stillframe/database
    sh scripts/container-entry.sh make-secrets
    cat /run/stillframe/database/redis-password; echo
    sh scripts/container-entry.sh make-secrets
    REDIS_SERVER=${server} sh scripts/container-entry.sh printenv REDIS_URL
    REDIS_SERVER=${server} REDIS_URL=redis://mine sh scripts/container-entry.sh printenv REDIS_URL`

  const { stdout } = spawnSync("unshare", [...unshare, script], { cwd: root, encoding: "utf8" })

  const [password = "", url, own] = stdout.split("\n")
  expect(password).toMatch(/^[A-Za-z0-9]{32,}$/)
  expect(url).toBe(`redis://:${password}@redis:6379`)
  expect(own).toBe("redis://mine")
})
