import { readFileSync } from "node:fs"
import { z } from "zod"

/** Users by number, both ends included. */
export interface UidRange {
  readonly first: number
  readonly last: number
}

/**
 * Lies above the ids that Debian, systemd, subordinate users and directory services give out, and below
 * systemd's foreign directories.
 */
const defaultRange = "2100000000-2100065535"
/** A host has one VM less at most, running or not. */
const usersMin = 64
/** Systems give smaller ones to their services. */
const firstMin = 1_000
/** The largest stands for no user. */
const lastMax = 2 ** 32 - 2
/** `nobody`, and what 16 bits have for no user. */
const reserved: UidRange = { first: 65_534, last: 65_535 }

/**
 * `VM_UID_RANGE`: where this process is root, a range that somebody else may use is a mistake to be told at
 * the start.
 */
export const vmUidSetting = z
  .string()
  .superRefine((text, context) => {
    const range = parseRange(text)
    const wrong = range === undefined ? shape : (wrongWith(range) ?? clashOnThisHost(range))
    if (wrong !== undefined) context.addIssue({ code: "custom", message: wrong })
  })
  .transform((text) => parseRange(text) ?? { first: 0, last: -1 })
  .prefault(defaultRange)

const shape = `must be two user ids with a hyphen between, such as ${defaultRange}`

function parseRange(text: string): UidRange | undefined {
  const [, first, last] = /^(\d{1,10})-(\d{1,10})$/.exec(text) ?? []
  return first === undefined ? undefined : { first: Number(first), last: Number(last) }
}

function wrongWith(range: UidRange): string | undefined {
  const { first, last } = range
  if (last < first) return `must name the smaller id first: ${last}-${first}`
  if (first < firstMin || last > lastMax)
    return `must lie between ${firstMin} and ${lastMax}; leave it out, or name such as ${defaultRange}`
  if (last - first + 1 < usersMin)
    return `must hold ${usersMin} users or more, one for each VM of the host; name such as ${defaultRange}`
  if (meet(range, reserved))
    return `must not hold 65534 or 65535, which are nobody's; name such as ${defaultRange}`
  return undefined
}

/**
 * The first account, in the form of passwd(5) or group(5), whose number lies in the range: `"ada" (1000)`.
 */
export function accountIn(accounts: string, { first, last }: UidRange): string | undefined {
  for (const line of accounts.split("\n")) {
    const [name, , id = ""] = line.split(":")
    if (/^\d+$/.test(id) && Number(id) >= first && Number(id) <= last) return `"${name}" (${id})`
  }
  return undefined
}

/** The first line, in the form of subuid(5), that meets the range: `"ada" (100000-165535)`. */
export function subordinateIn(ranges: string, range: UidRange): string | undefined {
  for (const line of ranges.split("\n")) {
    const [name, first = "", count = ""] = line.split(":")
    if (!/^\d+$/.test(first) || !(Number(count) > 0)) continue
    const other = { first: Number(first), last: Number(first) + Number(count) - 1 }
    if (meet(range, other)) return `"${name}" (${other.first}-${other.last})`
  }
  return undefined
}

/** True when a user namespace has all ids of the range, by its uid_map or gid_map (user_namespaces(7)). */
export function isMapped(map: string, { first, last }: UidRange): boolean {
  let next = first
  for (const [from = 0, , count = 0] of sorted(map)) if (from <= next) next = Math.max(next, from + count)
  return next > last
}

function sorted(map: string): number[][] {
  const lines = map
    .trim()
    .split("\n")
    .filter((line) => line !== "")
  return lines.map((line) => line.trim().split(/\s+/).map(Number)).toSorted(([a = 0], [b = 0]) => a - b)
}

const meet = (one: UidRange, other: UidRange): boolean => one.first <= other.last && other.first <= one.last

const elsewhere = "name a range that nothing else on this machine uses"

/** Undefined too where no VM gets a user of its own: elsewhere than as root. */
function clashOnThisHost(range: UidRange): string | undefined {
  if (process.getuid?.() !== 0) return undefined
  for (const file of ["/etc/passwd", "/etc/group"]) {
    const found = accountIn(contentOf(file), range)
    if (found !== undefined) return `holds ${found} of ${file}; ${elsewhere}`
  }
  for (const file of ["/etc/subuid", "/etc/subgid"]) {
    const found = subordinateIn(contentOf(file), range)
    if (found !== undefined) return `meets ${found} of ${file}; ${elsewhere}`
  }
  for (const file of ["/proc/self/uid_map", "/proc/self/gid_map"]) {
    const map = contentOf(file)
    if (map !== "" && !isMapped(map, range))
      return `is not wholly among the users of this container (${file}); name a range of those that it has, and no account uses`
  }
  return undefined
}

/** Empty where there is none, as in a container without accounts. */
function contentOf(file: string): string {
  try {
    return readFileSync(file, "utf8")
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
    return ""
  }
}
