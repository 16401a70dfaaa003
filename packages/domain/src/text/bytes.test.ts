import { expect, test } from "vitest"
import { shownBytes } from "./bytes.ts"

test.each([
  [0, "0 bytes"],
  [1023, "1023 bytes"],
  [1024, "1 KiB"],
  [1.5 * 1024 ** 3, "1.5 GiB"],
  [1024 ** 4, "1 TiB"],
  [1024 ** 4 - 4096, "1 TiB"],
  [1023.9 * 1024 ** 3, "1023.9 GiB"],
  [2 ** 62, "4096 PiB"],
])("%d bytes are shown as %s", (bytes, shown) => {
  expect(shownBytes(bytes)).toBe(shown)
})
