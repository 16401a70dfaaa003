import { z } from "zod"
import { jsonPointer } from "./query.ts"
import { writtenSchema } from "./written-schema.ts"

/**
 * Refuses a list or a record with more members than its schema allows. zod judges every member before it
 * counts them, so this comes first: the time that a request takes must not grow with it. Throws what `refuse`
 * makes of the place, a JSON pointer, and the reason.
 */
export function assertCounts(
  schema: z.core.$ZodType,
  value: unknown,
  refuse: (pointer: string, reason: string) => Error,
): void {
  walk(schema, value, [])

  function walk(outer: z.core.$ZodType, inner: unknown, path: readonly PropertyKey[]): void {
    if (typeof inner !== "object" || inner === null) return
    const written = writtenSchema(outer)
    if (written instanceof z.ZodArray && Array.isArray(inner)) {
      const limit = itemsMax(written)
      if (inner.length > limit) throw refuse(jsonPointer(path), tooManyItems(limit))
      for (const [index, item] of inner.entries()) walk(written.element, item, [...path, index])
    } else if (written instanceof z.ZodRecord) {
      const { maxProperties = Infinity } = z.globalRegistry.get(written) ?? {}
      if (Object.keys(inner).length > Number(maxProperties))
        throw refuse(jsonPointer(path), tooManyProperties(maxProperties))
    } else if (written instanceof z.ZodObject) {
      const shape: Readonly<Record<string, z.core.$ZodType>> = written.shape
      for (const [key, member] of Object.entries(shape))
        if (Object.hasOwn(inner, key)) walk(member, (inner as Record<string, unknown>)[key], [...path, key])
    }
  }
}

function itemsMax(list: z.ZodArray): number {
  const limits = (list.def.checks ?? []).flatMap((check) =>
    check instanceof z.core.$ZodCheckMaxLength ? [check._zod.def.maximum] : [],
  )
  return Math.min(...limits)
}

/** The words of the contract's validator for a list that is too long. */
export function tooManyItems(limit: number | bigint): string {
  return `maximum number of items is ${String(limit)}`
}

/** The words of the contract's validator for a record that has too many keys. */
export function tooManyProperties(limit: unknown): string {
  return `there must be at most ${String(limit)} properties`
}
