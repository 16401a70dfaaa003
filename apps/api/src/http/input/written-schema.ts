import { z } from "zod"

/**
 * The schema of the value that a caller writes, without its default, its transforms and whether it may be
 * absent or null.
 */
export function writtenSchema(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault)
    return writtenSchema(schema.unwrap())
  return schema instanceof z.ZodPipe ? writtenSchema(schema.in) : schema
}
