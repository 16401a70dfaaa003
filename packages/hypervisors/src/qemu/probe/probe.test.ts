import { expect, test } from "vitest"
import { parseMachines } from "./probe.ts"

test("a short name stands for the newest numbered type, also where the distribution's alias is a type of its own", () => {
  const help = `Supported machines are:
pc-i440fx-jammy      Ubuntu 22.04 PC (i440FX + PIIX, 1996) (default)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-6.2)
pc-i440fx-6.2        Standard PC (i440FX + PIIX, 1996)
pc-i440fx-10.0       Standard PC (i440FX + PIIX, 1996)
pc-q35-2.12          Standard PC (Q35 + ICH9, 2009)
q35                  Ubuntu 22.04 PC (Q35 + ICH9, 2009) (alias of pc-q35-jammy)
pc-q35-jammy         Ubuntu 22.04 PC (Q35 + ICH9, 2009)
pc-q35-6.2           Standard PC (Q35 + ICH9, 2009)
`

  expect(parseMachines(help)).toEqual({
    q35: "pc-q35-6.2",
    pc: "pc-i440fx-10.0",
    known: ["pc-i440fx-6.2", "pc-i440fx-10.0", "pc-q35-2.12", "pc-q35-6.2"],
  })
})

test("a program that is no emulator of PCs has none", () => {
  expect(parseMachines("Supported machines are:\nvirt  ARM Virtual Machine\n")).toBeUndefined()
})
