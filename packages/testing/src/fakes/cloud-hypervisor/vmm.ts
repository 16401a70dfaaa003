import { closeSync, fstatSync, openSync } from "node:fs"
import type { Answer } from "./answer.ts"
import { Guest } from "./guest.ts"
import { holdName } from "./socket-lock.ts"

export interface VmConfig {
  cpus: { boot_vcpus: number; max_vcpus: number }
  memory: { size: number }
  payload: { kernel?: string } | null
  disks: { path: string; readonly: boolean }[] | null
  serial: { mode: string; file?: string | null }
  [member: string]: unknown
}

/** What it says of a disk that can't be opened. */
const words: Readonly<Record<string, string>> = {
  EADDRINUSE: "Error locking disk images: Another instance likely holds a lock",
  EACCES: "Permission denied (os error 13)",
  ENOENT: "No such file or directory (os error 2)",
}

/** The one VM of a process, or none. */
export class FakeVmm {
  readonly version: string
  readonly major: number
  config: VmConfig | undefined
  /** There is none before the boot, while the state reads `Created`. */
  guest: Guest | undefined
  state: "Created" | "Running" | "Paused" | "Shutdown" = "Created"
  #closes: (() => void)[] = []

  constructor(version: string) {
    this.version = version
    this.major = Number.parseInt(version.slice(1), 10)
  }

  /** Outermost first, as this version words its errors. */
  errorBody(messages: readonly string[]): string {
    return this.major >= 48 ? JSON.stringify(messages) : messages.join(": ")
  }

  /** Since v52 members that are not set are left out, before they are null. */
  configText(config: object): string {
    return JSON.stringify(config, (_name, value: unknown) =>
      this.major >= 52 ? (value ?? undefined) : value,
    )
  }

  refused(messages: readonly string[]): Answer {
    const missing = messages.at(-1) === "VM is not created"
    return { status: this.major >= 53 && missing ? 404 : 500, body: this.errorBody(messages) }
  }

  /** Opens what the configuration names. Throws an Error with the last words of the refusal. */
  async open(config: VmConfig): Promise<Guest> {
    try {
      for (const { path, readonly } of config.disks ?? []) {
        const fd = openSync(path, readonly ? "r" : "r+")
        this.#closes.push(() => closeSync(fd))
        const { dev, ino } = fstatSync(fd)
        // Readers share a lock with each other, which is none to speak of here.
        if (!readonly) this.#closes.push(await holdName(`disk/${dev}/${ino}`))
      }
    } catch (error) {
      this.#closeDisks()
      throw new Error(words[(error as NodeJS.ErrnoException).code ?? ""] ?? words["ENOENT"], { cause: error })
    }
    return new Guest(config.serial.file ?? "/dev/null")
  }

  close(): void {
    this.guest?.end()
    this.guest = undefined
    this.#closeDisks()
  }

  #closeDisks(): void {
    for (const close of this.#closes.splice(0)) close()
  }
}
