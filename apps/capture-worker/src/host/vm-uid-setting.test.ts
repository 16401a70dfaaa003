import { readFileSync } from "node:fs"
import fc from "fast-check"
import { expect, test } from "vitest"
import { configFromEnv } from "../config.ts"
import { accountIn, isMapped, subordinateIn, type UidRange } from "./vm-uid-setting.ts"

const database = { DATABASE_URL: "postgres://localhost/test" }
const isRoot = process.getuid?.() === 0

function range(text?: string): UidRange {
  return configFromEnv({ ...database, ...(text !== undefined && { VM_UID_RANGE: text }) }).vmUids
}

/**
 * Ranges that others take by themselves: Debian, subordinate users, systemd's containers and its foreign
 * directories.
 */
const others: readonly UidRange[] = [
  { first: 0, last: 65_535 },
  { first: 100_000, last: 600_100_000 },
  { first: 524_288, last: 1_879_048_191 },
  { first: 2_147_352_576, last: 2 ** 32 - 1 },
]

test("the range that is used where none is set meets nothing that systems take by themselves", () => {
  const { first, last } = range()

  expect(last - first + 1).toBe(65_536)
  for (const other of others) expect(first > other.last || last < other.first).toBe(true)
})

test("a range is taken as it is named", () => {
  expect(range("1900000000-1900000999")).toEqual({ first: 1_900_000_000, last: 1_900_000_999 })
})

test.each([
  ["1900000000", "must be two user ids"],
  ["1900000000:1900000999", "must be two user ids"],
  ["1900000999-1900000000", "must name the smaller id first: 1900000000-1900000999"],
  ["1900000000-1900000062", "must hold 64 users or more"],
  ["100-999", "must lie between 1000 and 4294967294"],
  ["4294967000-4294967295", "must lie between 1000 and 4294967294"],
  ["65000-65999", "must not hold 65534 or 65535"],
])("%s is refused at the start, with what would be right", (text, words) => {
  expect(() => range(text)).toThrow(`VM_UID_RANGE: ${words}`)
})

test.skipIf(!isRoot)(
  "a range that holds an account of this machine is refused, with the account's name",
  () => {
    const [name, , id] = (readFileSync("/etc/passwd", "utf8").match(/^nobody:.*$/m)?.[0] ?? "").split(":")
    expect([name, id]).toEqual(["nobody", "65534"])

    expect(accountIn(readFileSync("/etc/passwd", "utf8"), { first: 65_534, last: 65_600 })).toBe(
      '"nobody" (65534)',
    )
  },
)

test("an account is found where its number lies in the range, and nowhere else", () => {
  fc.assert(
    fc.property(fc.nat(5_000), fc.nat(5_000), fc.nat(5_000), (id, first, count) => {
      const accounts = `# users\nroot:x:0:0:root:/root:/bin/sh\nada:x:${id + 1}:7::/:/bin/sh\n+::::::\n`
      const found = accountIn(accounts, { first: first + 1, last: first + 1 + count })
      expect(found).toBe(id >= first && id <= first + count ? `"ada" (${id + 1})` : undefined)
    }),
  )
})

test("ranges of subordinate users are found where they meet the range in one number or more", () => {
  fc.assert(
    fc.property(
      fc.nat(100),
      fc.integer({ min: 1, max: 50 }),
      fc.nat(100),
      fc.nat(50),
      (from, count, first, more) => {
        const last = first + more
        const meets = Array.from({ length: count }, (_, index) => from + index).some(
          (id) => id >= first && id <= last,
        )
        const found = subordinateIn(`ada:${from}:${count}\nbroken\n`, { first, last })
        expect(found).toBe(meets ? `"ada" (${from}-${from + count - 1})` : undefined)
      },
    ),
    // In one number, and next to each other without one.
    {
      examples: [
        [10, 5, 14, 3],
        [10, 5, 15, 3],
        [10, 5, 5, 5],
        [10, 5, 5, 4],
      ],
    },
  )
})

test("a container has a range only where its maps leave no gap in it", () => {
  const all = "         0          0 4294967295\n"
  const parts = "      1000     101000      64536\n         0       1000       1000\n"
  expect(isMapped(all, { first: 2_100_000_000, last: 2_100_065_535 })).toBe(true)
  expect(isMapped(parts, { first: 500, last: 65_535 })).toBe(true)
  expect(isMapped(parts, { first: 500, last: 65_536 })).toBe(false)
  expect(isMapped("0 0 10\n20 20 10\n", { first: 5, last: 25 })).toBe(false)
  expect(isMapped("", { first: 5, last: 25 })).toBe(false)
})
