import { expect, test } from "vitest"
import { createId, idPattern } from "./ids.ts"

const many = 200_000

test("ids have the contract's form, and no two are the same", () => {
  const ids = Array.from({ length: many }, createId)

  expect(ids.filter((id) => !idPattern.test(id))).toEqual([])
  expect(new Set(ids).size).toBe(many)
})

test("every letter is as likely as any other in the first place, and every character in the others", () => {
  const ids = Array.from({ length: many }, createId)

  const first = ids.map((id) => id.slice(0, 1)).join("")
  const others = ids.map((id) => id.slice(1)).join("")
  expect(counts(first).length).toBe(26)
  expect(deviations(first)).toBeLessThan(6)
  expect(counts(others).length).toBe(36)
  expect(deviations(others)).toBeLessThan(6)
})

function counts(text: string): number[] {
  const found = new Map<string, number>()
  for (const character of text) found.set(character, (found.get(character) ?? 0) + 1)
  return [...found.values()]
}

/**
 * Of the count that is furthest off, in standard deviations: never six by chance, more than seven for bytes
 * taken modulo.
 */
function deviations(text: string): number {
  const ofEach = counts(text)
  const expected = text.length / ofEach.length
  return Math.max(...ofEach.map((count) => Math.abs(count - expected))) / Math.sqrt(expected)
}
