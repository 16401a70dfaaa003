import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { builtinImage } from "@stillframe/hypervisors/images"
import { createLogger } from "@stillframe/runtime/logger"
import { expect, test } from "vitest"
import { configFromEnv } from "../config.ts"
import { probeHostQemu } from "./host-qemu.ts"

const isRoot = process.getuid?.() === 0
const users = { range: { first: 2_100_000_000, last: 2_100_000_999 }, confined: false }

/**
 * A host whose KVM only root can open, with a program in the place of QEMU whose trial on KVM ends as `trial`
 * does.
 */
async function hostWhere(trial: string) {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-host-"))
  await chmod(dataDir, 0o711)
  const [binary, kvmDevice] = [join(dataDir, "qemu"), join(dataDir, "kvm")]
  const script = `#!/bin/sh
case "$*" in
  --version) echo "QEMU emulator version 7.2.0" ;;
  "-machine help") printf 'pc-q35-7.2 x\\npc-i440fx-7.2 x\\n' ;;
  *accel=kvm*) ${trial} ;;
esac
`
  await writeFile(binary, script, { mode: 0o755 })
  await writeFile(kvmDevice, "", { mode: 0o600 })
  const { kernel = "", initrd = "" } = builtinImage("demo", join(dataDir, "images"))
  await mkdir(dirname(kernel), { recursive: true })
  for (const file of [kernel, initrd]) await writeFile(file, "")
  const config = configFromEnv({
    DATABASE_URL: "postgres://localhost/stillframe",
    DATA_DIR: dataDir,
    QEMU_BINARY: binary,
  })
  const warnings: string[] = []
  const log = createLogger({ service: "test", level: "silent" })
  log.warn = (_: object, message?: string) => void warnings.push(message ?? "")
  return {
    warnings,
    probe: () => probeHostQemu({ ...config, kvmDevice }, { users, log }),
    [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true }),
  }
}

test.skipIf(!isRoot)(
  "a device of KVM that VMs cannot open is no warning where they run without KVM",
  async () => {
    await using host = await hostWhere("exit 1")

    const { tools } = await host.probe()

    expect(tools.vmUsers).toMatchObject(users.range)
    expect(host.warnings).toEqual([])
  },
)

test.skipIf(!isRoot)("where VMs run on KVM, one warning says why they are root's", async () => {
  await using host = await hostWhere("echo COUNT")

  const { tools } = await host.probe()

  expect(tools.vmUsers).toBeUndefined()
  expect(host.warnings).toEqual([expect.stringContaining("qemu runs as root: only root can open")])
})
