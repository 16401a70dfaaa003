import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { processEnv } from "@stillframe/runtime/env"
import { createLogger } from "@stillframe/runtime/logger"
import { afterEach, expect, test, vi } from "vitest"
import { openHostUsers } from "./host-users.ts"

const isRoot = process.getuid?.() === 0
const vmUids = { first: 1_900_400_000, last: 1_900_400_063 }

afterEach(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

/**
 * Opens the users of a host where these programs are found before the system's, with the warnings that people
 * get.
 */
async function usersWith(programs: Record<string, string>) {
  const folder = await mkdtemp(join(tmpdir(), "stillframe-programs-"))
  for (const [name, script] of Object.entries(programs))
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  vi.stubEnv("PATH", `${folder}:${processEnv()["PATH"]}`)
  const warnings: object[] = []
  const log = createLogger({ service: "test", level: "silent" })
  log.warn = (detail: object, message?: string) => void warnings.push({ ...detail, message })
  try {
    return { users: await openHostUsers({ vmUids }, log), warnings }
  } finally {
    await rm(folder, { recursive: true })
  }
}

test.skipIf(!isRoot)(
  "a host that forbids namespaces runs VMs without, and says so once with the reason",
  async () => {
    const refused = "unshare: unshare failed: Operation not permitted"

    const { users, warnings } = await usersWith({ unshare: `echo '${refused}' >&2; exit 1` })

    expect(users).toEqual({ range: vmUids, confined: false })
    expect(warnings).toEqual([
      {
        reason: refused,
        message: expect.stringMatching(
          /without namespaces of their own.+needs CAP_SYS_ADMIN and CAP_SETPCAP/,
        ),
      },
    ])
  },
)

test.skipIf(!isRoot)("an account that only a directory service knows is found", async () => {
  const ada = `echo 'ada:x:${vmUids.last}:100::/home/ada:/bin/sh'`

  await expect(usersWith({ getent: ada })).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining(`VM_UID_RANGE: holds "ada" (${vmUids.last}) of "getent passwd"`),
  })
})

test("where this process is not root, VMs run as its user, and nothing is looked for", async () => {
  vi.spyOn(process, "getuid").mockReturnValue(1_000)

  expect(await usersWith({ unshare: "exit 1" })).toEqual({ users: undefined, warnings: [] })
})
