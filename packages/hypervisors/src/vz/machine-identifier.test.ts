import { expect, test } from "vitest"
import { machineIdentifierData } from "./machine-identifier.ts"

test("a machine identifier is the property list that other readers make of the same UUID", () => {
  const uuid = Buffer.from("000102030405060708090a0b0c0d0e0f", "hex")

  // Made with Python: plistlib.dumps({"UUID": bytes(range(16))}, fmt=plistlib.FMT_BINARY).hex()
  const list =
    "62706c6973743030d1010254555549444f1010000102030405060708090a0b0c0d0e0f080b100000000000000101000000000000000300000000000000000000000000000023"
  expect(machineIdentifierData(uuid).toString("hex")).toBe(list)
})
