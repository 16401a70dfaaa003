import { randomBytes } from "node:crypto"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { vzFiles } from "./files.ts"
import { machineIdentifierData } from "./machine-identifier.ts"

/**
 * The values that a machine must be given again to be loaded, besides its configuration. It is made once, at
 * the launch; a VM that is restored, and each fork, is the same machine to its guest.
 */
export interface Machine {
  /** Base64. The framework refuses the saved state of any other: `VZErrorDomain` code 12. */
  readonly machine_identifier: string
  /** The address of its one network device. */
  readonly mac: string
  /** `hostIdentity` of the Mac that saved it, whose own key the state is encrypted with. */
  readonly host: string
  /** The release of Darwin it ran: a later one may refuse the state. */
  readonly system: string
}

export function newMachine(host: Pick<Machine, "host" | "system">): Machine {
  return {
    machine_identifier: machineIdentifierData(randomUuid()).toString("base64"),
    mac: randomMac(),
    ...host,
  }
}

export async function writeMachine(dir: string, machine: Machine): Promise<void> {
  await writeFile(join(dir, vzFiles.machine), JSON.stringify(machine), { mode: 0o600 })
}

/** Throws `corrupted` when it is missing or says less than is needed. */
export async function readMachine(dir: string): Promise<Machine> {
  try {
    return checked(JSON.parse(await readFile(join(dir, vzFiles.machine), "utf8")))
  } catch (error) {
    throw new StillframeError(
      "corrupted",
      `${vzFiles.machine} is missing or damaged, and without its machine identifier no saved state can be loaded; take another snapshot`,
      { cause: error, said: (error as Error).message },
    )
  }
}

function checked(read: unknown): Machine {
  const machine = read as Partial<Machine> | null
  const members = [machine?.machine_identifier, machine?.mac, machine?.host, machine?.system]
  if (members.some((member) => typeof member !== "string" || member === ""))
    throw new Error("it lacks a member")
  return machine as Machine
}

function randomUuid(): Buffer {
  const uuid = randomBytes(16)
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x40
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80
  return uuid
}

/** Locally administered, and no group's. */
function randomMac(): string {
  const mac = randomBytes(6)
  mac[0] = ((mac[0] ?? 0) & 0xfc) | 0x02
  return [...mac].map((byte) => byte.toString(16).padStart(2, "0")).join(":")
}
