import { readFile } from "node:fs/promises"
import { Ajv, type ValidateFunction } from "ajv"
import { parse } from "yaml"

/** One request to a VMM's API, as a fake noted it down. */
export interface Exchange {
  method: string
  path: string
  body: string
  status: number
  answer?: string
}

interface Operation {
  requestBody?: { content: Content }
  responses: Record<string, { content?: Content } | undefined>
}

type Content = Record<string, { schema: object } | undefined>
type Schemas = Record<string, { type?: string; properties?: object; additionalProperties?: unknown }>

/**
 * Checks exchanges against an OpenAPI 3.0 description. The returned function gives what is wrong with one: a
 * path, a member or an answer that the description does not have.
 */
export async function describedBy(path: URL): Promise<(exchange: Exchange) => string[]> {
  const description = parse(await readFile(path, "utf8")) as {
    paths: Record<string, Record<string, Operation> | undefined>
    components: { schemas: Schemas }
  }
  // The VMM takes members that it does not know without a word, so only this says when one is misspelt.
  for (const schema of Object.values(description.components.schemas))
    if (schema.properties !== undefined) schema.additionalProperties ??= false
  const ajv = new Ajv({ strict: false, logger: false, validateFormats: false, allErrors: true })
  ajv.addSchema({ $id: "api", components: description.components })
  return (exchange) => {
    const operation = description.paths[exchange.path]?.[exchange.method.toLowerCase()]
    if (operation === undefined) return [`${exchange.method} ${exchange.path} is not described`]
    return [
      ...request(ajv, operation, exchange).map((reason) => `${exchange.path} asked: ${reason}`),
      ...answer(ajv, operation, exchange).map((reason) => `${exchange.path} answered: ${reason}`),
    ]
  }
}

function request(ajv: Ajv, { requestBody }: Operation, { body }: Exchange): string[] {
  if (requestBody === undefined) return body === "" ? [] : ["a body where none belongs"]
  return check(ajv, requestBody.content, JSON.parse(body))
}

function answer(ajv: Ajv, { responses }: Operation, exchange: Exchange): string[] {
  // Refusals are described in part, and with another status than they have.
  if (exchange.status >= 400) return []
  const response = responses[exchange.status]
  if (response === undefined) return [`status ${exchange.status} is not described`]
  if (response.content === undefined)
    return (exchange.answer ?? "") === "" ? [] : ["a body where none belongs"]
  return check(ajv, response.content, withoutNulls(JSON.parse(exchange.answer ?? "")))
}

function check(ajv: Ajv, content: Content, value: unknown): string[] {
  const schema = content["application/json"]?.schema as { $ref: string }
  const validate: ValidateFunction = ajv.compile({ $ref: `api${schema.$ref}` })
  return validate(value)
    ? []
    : (validate.errors ?? []).map((error) => ajv.errorsText([error]) + at(error.params))
}

const at = (params: object): string => ` ${JSON.stringify(params)}`

/** Members that are not set are null in answers, which the description does not say of any. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (typeof value !== "object" || value === null) return value
  const members = Object.entries(value).filter(([, member]) => member !== null)
  return Object.fromEntries(members.map(([name, member]) => [name, withoutNulls(member)]))
}
