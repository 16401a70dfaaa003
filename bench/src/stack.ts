import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { secretFile } from "@stillframe/runtime/secrets"
import { client, type Client } from "@stillframe/stillframe/demo/client"
import { installImages } from "@stillframe/stillframe/stack/install-images"
import { mintToken } from "@stillframe/stillframe/token"
import type { Machine } from "./machine.ts"
import { startProgram, type LogLine, type Program } from "./program.ts"

/** A running installation to be measured. */
export interface Stack extends AsyncDisposable {
  readonly api: Client
  readonly dataDir: string
  /** Of the process that compresses. */
  readonly logged: Program["logged"]
}

/** All in one process, as `npm start` runs it, with more settings if there are any. */
export async function startWhole(
  machine: Machine,
  dataDir: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<Stack> {
  const env = { DATA_DIR: dataDir, PORT: "0", ...machineEnv(machine), ...settings }
  const program = await startProgram("stillframe", env, ["start"])
  const url = urlOf(await program.logged(isListening))
  const token = await readFile(join(dataDir, "token"), "utf8")
  return {
    api: client({ url, token }),
    dataDir,
    logged: (matches) => program.logged(matches),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

/** An installation of one process per app, without the capture-worker: that one comes and goes. */
export interface Parts extends AsyncDisposable {
  readonly api: Client
  readonly dataDir: string
  /** What a capture-worker needs. */
  readonly workerEnv: Readonly<Record<string, string>>
}

export async function startParts(machine: Machine, dataDir: string): Promise<Parts> {
  await using resources = new AsyncDisposableStack()
  await installImages(join(dataDir, "images"))
  const secret = await secretFile(join(dataDir, "secret"))
  const postgres = resources.use(
    await startEmbeddedPostgres({ dataDir: join(dataDir, "postgres"), password: secret }),
  )
  const env = {
    DATABASE_URL: postgres.url,
    JWT_SECRET: secret,
    SECRETS_KEY: secret,
    CALLER_REQUESTS_PER_SECOND: "0",
    DATA_DIR: dataDir,
    PORT: "0",
    ...machineEnv(machine),
  }
  const api = resources.use(await startProgram("api", env))
  const url = urlOf(await api.logged(isListening))
  resources.use(await startProgram("dispatcher", { ...env, PORT: new URL(url).port }))
  const token = await mintToken(secret, tokenSeconds)
  const started = resources.move()
  return {
    api: client({ url, token }),
    dataDir,
    workerEnv: env,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

const tokenSeconds = 3_600

function machineEnv(machine: Machine): Record<string, string> {
  return { QEMU_BINARY: machine.binary, QEMU_IMG: machine.qemuImg, QEMU_ACCELERATOR: machine.accel }
}

function isListening({ msg }: LogLine): boolean {
  return msg === "listening"
}

function urlOf({ url }: LogLine): string {
  return String(url)
}
