import { readFile } from "node:fs/promises"
import { expect, test } from "vitest"

const root = new URL("../../../", import.meta.url)
const textOf = (file: string): Promise<string> => readFile(new URL(file, root), "utf8")

/**
 * Those that an image, a network of containers, or a machine's own programs decide: the file has no variable
 * for them.
 */
const fixed = [
  "ATTACH_BINARIES",
  "CAPTURE_STAGING",
  "CLOUD_HYPERVISOR_BINARY",
  "DATABASE_CONNECTIONS",
  "DATABASE_DIRECT_URL",
  "DATABASE_URL",
  "DATA_DIR",
  "FIRECRACKER_BINARY",
  "KEEP_ALIVE_TIMEOUT",
  "LISTEN_HOST",
  "QEMU_ACCELERATOR",
  "QEMU_BINARY",
  "QEMU_IMG",
  "REDIS_URL",
  "STORAGE_DIR",
  // The workers of the images are not root.
  "VM_UID_RANGE",
  "VZ_SHIM_BINARY",
]

function names(text: string, pattern: RegExp): string[] {
  return [...new Set([...text.matchAll(pattern)].map(([, name = ""]) => name))].toSorted()
}

test("docker-compose.yml takes the settings that .env.example names, and no other", async () => {
  const taken = names(await textOf("docker-compose.yml"), /\$\{([A-Z_]+)/g)
  const named = names(await textOf(".env.example"), /^#?([A-Z_]+)=/gm)

  expect(taken).toEqual(named)
})

test("docker-compose.yml takes every setting of docs/settings.md that a container does not decide", async () => {
  const taken = names(await textOf("docker-compose.yml"), /\$\{([A-Z_]+)/g)

  const missing = names(await textOf("docs/settings.md"), /^\| `([A-Z_]+)` \|/gm).filter(
    (name) => !taken.includes(name),
  )

  expect(missing).toEqual(fixed)
})
