import { expect, test } from "vitest"
import { parseVersion } from "./version.ts"

test("the version is found in what the binary and the API say", () => {
  expect(parseVersion("Firecracker v1.16.1\n\n")).toEqual({ major: 1, minor: 16, text: "1.16.1" })
  expect(parseVersion("1.12.0-dev").text).toBe("1.12.0-dev")
})

test.each(["Firecracker v1.11.0", "0.25.2", "2.0.0", "QEMU"])("%s is not supported", (said) => {
  expect(() => parseVersion(said)).toThrow(expect.objectContaining({ code: "hypervisor_unavailable" }))
})
