import { expect, test } from "vitest"
import { mergeRate } from "./merge-rate.ts"

test("a merge leaves the guest most of a slow disk, until its chain is twice too long", () => {
  const rates = [9, 16, 17].map((overlays) => mergeRate(overlays, 8))

  expect(rates).toEqual([64 * 1024 * 1024, 64 * 1024 * 1024, 0])
})
