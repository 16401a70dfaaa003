import { unknownField } from "./fields.ts"

export type Fields = Record<string, unknown>

const changes =
  /^(PUT \/(actions|boot-source|machine-config|drives\/\w+|snapshot\/(create|load))|PATCH \/vm)$/

/** Which words a member may have. */
const variants: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  "/actions": { action_type: ["FlushMetrics", "InstanceStart", "SendCtrlAltDel"] },
  "/vm": { state: ["Paused", "Resumed"] },
  "/snapshot/create": { snapshot_type: ["Diff", "Full"] },
}

/** What a request must have. */
const needed: Readonly<Record<string, readonly string[]>> = {
  "/actions": ["action_type"],
  "/vm": ["state"],
  "/snapshot/create": ["snapshot_path", "mem_file_path"],
  "/snapshot/load": ["snapshot_path"],
}

/**
 * The body of a request to change something. Throws with the words of Firecracker's parser, before anything
 * is done.
 */
export function parseChange(method: string, path: string, text: string, minor: number): Fields {
  if (!changes.test(`${method} ${path}`))
    throw new Error(`Invalid request method and/or path: ${method} ${path.split("/")[1] ?? ""}.`)
  if (text === "") throw new Error(`Empty ${method} request.`)
  const body = parsed(text)
  const wrong = unknownField(path, body, minor) ?? missing(path, body) ?? unknownVariant(path, body)
  if (wrong !== undefined) throw unreadable(`${wrong} at line 1 column ${text.length}`)
  if (path.startsWith("/drives/") && body["drive_id"] !== path.split("/")[2])
    throw new Error("The id from the path does not match the id from the body!")
  if (path === "/snapshot/load") oneBackend(body)
  return body
}

function parsed(text: string): Fields {
  try {
    return JSON.parse(text) as Fields
  } catch {
    throw unreadable(`EOF while parsing an object at line 1 column ${text.length}`)
  }
}

function missing(path: string, body: Fields): string | undefined {
  const name = needed[path]?.find((member) => body[member] === undefined)
  return name === undefined ? undefined : `missing field \`${name}\``
}

function unknownVariant(path: string, body: Fields): string | undefined {
  for (const [member, words] of Object.entries(variants[path] ?? {})) {
    const said = body[member]
    if (typeof said !== "string" || words.includes(said)) continue
    const quoted = words.map((word) => `\`${word}\``)
    const expected = quoted.length === 2 ? quoted.join(" or ") : `one of ${quoted.join(", ")}`
    return `unknown variant \`${said}\`, expected ${expected}`
  }
  return undefined
}

function oneBackend({ mem_backend, mem_file_path }: Fields): void {
  const either = "either `mem_backend` or `mem_file_path`"
  if (mem_backend === undefined && mem_file_path === undefined)
    throw unreadable(`missing field: ${either} is required`)
  if (mem_backend !== undefined && mem_file_path !== undefined)
    throw unreadable(`too many fields: ${either} exclusively is required`)
}

const unreadable = (why: string): Error =>
  new Error(`An error occurred when deserializing the json body of a request: ${why}.`)
