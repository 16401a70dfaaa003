/** One member of an archive: a folder where there is no data. `name` has no leading slash. */
export interface CpioMember {
  readonly name: string
  readonly mode: number
  readonly data?: Uint8Array
  /** Major and minor number: makes the member a character device. */
  readonly device?: readonly [number, number]
}

const FOLDER = 0o040000
const CHARACTER_DEVICE = 0o020000
const FILE = 0o100000

/**
 * A cpio archive as the kernel unpacks it from an initramfs ("newc", magic 070701; described in the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst). Owner root, time 0: the same input gives the
 * same bytes.
 */
export function cpioArchive(members: readonly CpioMember[]): Buffer {
  const parts = members.flatMap((member, index) => memberBytes(member, index + 1))
  return Buffer.concat([...parts, ...memberBytes({ name: "TRAILER!!!", mode: 0 }, 0)])
}

function memberBytes(member: CpioMember, inode: number): Buffer[] {
  const data = Buffer.from(member.data ?? [])
  const name = Buffer.from(`${member.name}\0`)
  const [major, minor] = member.device ?? [0, 0]
  const fields = [
    inode,
    inode === 0 ? 0 : kindOf(member) | member.mode,
    0, // uid
    0, // gid
    1, // links
    0, // time
    data.length,
    0, // device the archive was made on, major and minor
    0,
    major,
    minor,
    name.length,
    0, // checksum, unused in this variant
  ]
  const header = Buffer.from(`070701${fields.map((value) => value.toString(16).padStart(8, "0")).join("")}`)
  return [padded(Buffer.concat([header, name])), padded(data)]
}

function kindOf(member: CpioMember): number {
  if (member.device) return CHARACTER_DEVICE
  return member.data ? FILE : FOLDER
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}
