import { resolve } from "node:path"
import { checkPathShape, type DiskConfig } from "../../launch-config.ts"
import { allowOnly, Inexpressible, parseOptionString, shown } from "./option-string.ts"

/** The arguments of a command line that make disks, in their order. */
export interface DiskArguments {
  drives: string[]
  blockdevs: string[]
  devices: string[]
}

/** The disks in the order in which the guest's bus has them, and the types of all devices named. */
export interface ParsedDisks {
  disks: DiskConfig[]
  devices: string[]
}

interface Drive extends DiskConfig {
  /** By which a device names it; absent for a disk whose device QEMU makes. */
  id?: string
}

const any = /^/
const name = /^[A-Za-z][\w.-]*$/
const onOff = /^(on|off)$/
/** Which do not change what the guest sees, so the launch form has its own. */
const hostOnly = {
  aio: /^(threads|native|io_uring)$/,
  discard: /^(ignore|unmap|on|off)$/,
  "detect-zeroes": /^(on|off|unmap)$/,
  "cache.direct": onOff,
  "cache.no-flush": onOff,
}
const driveMembers = {
  file: any,
  format: /^(raw|qcow2)$/,
  driver: /^(raw|qcow2)$/,
  "file.driver": /^file$/,
  "file.filename": any,
  if: /^(virtio|none)$/,
  media: /^disk$/,
  id: name,
  readonly: onOff,
  "read-only": onOff,
  // Not writethrough and directsync: their guest sees a disk without a write cache.
  cache: /^(none|writeback|unsafe)$/,
  ...hostOnly,
}
const blockdevMembers = {
  driver: /^(raw|qcow2|file)$/,
  "node-name": name,
  filename: any,
  file: name,
  "file.driver": /^file$/,
  "file.filename": any,
  "file.node-name": name,
  "file.aio": hostOnly.aio,
  "file.cache.direct": onOff,
  "file.cache.no-flush": onOff,
  "file.discard": hostOnly.discard,
  backing: /^$/,
  "read-only": onOff,
  "auto-read-only": onOff,
  ...hostOnly,
}

/** Throws `Inexpressible` for whatever is no disk of a launch form. */
export function parseDisks(
  { drives, blockdevs, devices }: DiskArguments,
  cwd: string,
  microvm: boolean,
): ParsedDisks {
  const driver = microvm ? "virtio-blk-device" : "virtio-blk-pci"
  const parsed = drives.map((text) => parseDrive(text, cwd))
  const unused = new Map<string, DiskConfig>(parseBlockdevs(blockdevs, cwd))
  for (const { id, ...disk } of parsed) {
    if (id === undefined) continue
    if (unused.has(id)) throw new Inexpressible(`-drive id=${id}, given twice`)
    unused.set(id, disk)
  }
  const disks: DiskConfig[] = []
  const types: string[] = []
  for (const text of devices) {
    const type = parseDevice(text, driver, (id) => {
      const disk = unused.get(id)
      if (disk === undefined) throw new Inexpressible(`-device drive=${shown(id)}`)
      unused.delete(id)
      disks.push(disk)
    })
    types.push(type)
  }
  const [idle] = unused.keys()
  if (idle !== undefined) throw new Inexpressible(`the drive ${idle}, which no device uses`)
  // QEMU makes the devices of "if=virtio" after those that have been named.
  for (const { id, ...disk } of parsed) {
    if (id !== undefined) continue
    disks.push(disk)
    types.push(driver)
  }
  return { disks, devices: types }
}

/** A drive's id counts only where a device of its own uses it. */
function parseDrive(text: string, cwd: string): Drive {
  const members = parseOptionString("-drive", text)
  allowOnly("-drive", members, driveMembers)
  const kind = members.get("if")
  if (kind === undefined) throw new Inexpressible("-drive without if=virtio or if=none")
  const format = only(members, "-drive", "format", "driver")
  if (format === undefined) throw new Inexpressible("-drive without format")
  const filename = only(members, "-drive", "file", "file.filename")
  const readonly = only(members, "-drive", "readonly", "read-only") === "on"
  const disk = { path: pathOf("-drive", filename, cwd), format: format as DiskConfig["format"], readonly }
  if (kind === "virtio") return disk
  const id = members.get("id")
  if (id === undefined) throw new Inexpressible("-drive if=none without id")
  return { ...disk, id }
}

function parseBlockdevs(texts: readonly string[], cwd: string): [string, DiskConfig][] {
  const files = new Map<string, string>()
  const disks: [string, DiskConfig][] = []
  for (const text of texts) {
    const members = parseOptionString("-blockdev", text, "driver")
    allowOnly("-blockdev", members, blockdevMembers)
    const node = members.get("node-name")
    if (node === undefined) throw new Inexpressible("-blockdev without node-name")
    if (files.has(node) || disks.some(([other]) => other === node))
      throw new Inexpressible(`-blockdev node-name=${node}, given twice`)
    const driver = members.get("driver")
    if (driver === "file") files.set(node, pathOf("-blockdev", members.get("filename"), cwd))
    else if (driver === "raw" || driver === "qcow2") {
      const path = formatFile(members, files, cwd)
      disks.push([node, { path, format: driver, readonly: members.get("read-only") === "on" }])
    } else throw new Inexpressible("-blockdev without driver")
  }
  const [idle] = files.keys()
  if (idle !== undefined) throw new Inexpressible(`-blockdev node-name=${idle}, a file without a format`)
  return disks
}

/** The file below a format node: its own member, or an earlier node, which then is used up. */
function formatFile(members: ReadonlyMap<string, string>, files: Map<string, string>, cwd: string): string {
  const reference = members.get("file")
  if (reference === undefined) {
    if (members.get("file.driver") !== "file") throw new Inexpressible("-blockdev without file.driver")
    return pathOf("-blockdev", members.get("file.filename"), cwd)
  }
  const path = files.get(reference)
  if (path === undefined) throw new Inexpressible(`-blockdev file=${reference}`)
  files.delete(reference)
  return path
}

function parseDevice(text: string, driver: string, useDrive: (id: string) => void): string {
  const members = parseOptionString("-device", text, "driver")
  const type = members.get("driver") ?? ""
  const option = `-device ${shown(type)}`
  if (type === "vmgenid" && driver === "virtio-blk-pci") {
    allowOnly(option, members, { driver: any, guid: any, id: name })
    return type
  }
  // The alias is the PCI device on every x86 machine.
  if (type !== driver && !(type === "virtio-blk" && driver === "virtio-blk-pci"))
    throw new Inexpressible(option)
  allowOnly(option, members, { driver: any, drive: name, id: name })
  useDrive(members.get("drive") ?? "")
  return driver
}

/** One of two spellings, not both. */
function only(
  members: ReadonlyMap<string, string>,
  option: string,
  a: string,
  b: string,
): string | undefined {
  if (members.has(a) && members.has(b)) throw new Inexpressible(`${option} ${b} beside ${a}`)
  return members.get(a) ?? members.get(b)
}

function pathOf(option: string, filename: string | undefined, cwd: string): string {
  if (filename === undefined || filename === "") throw new Inexpressible(`${option} without file`)
  // Protocol and "json:" names first: made absolute they would look like paths.
  if (/[,:\\]/.test(filename)) throw new Inexpressible(`${option} file=${shown(filename)}`)
  const path = resolve(cwd, filename)
  try {
    checkPathShape(path)
  } catch {
    throw new Inexpressible(`${option} file=${shown(filename)}`)
  }
  return path
}
