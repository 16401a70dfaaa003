/** An option that a launch cannot express. It stays inside the parser, which returns its `option`. */
export class Inexpressible extends Error {
  readonly option: string

  constructor(option: string) {
    super(option)
    this.option = option
  }
}

/**
 * The members of one argument, as QEMU reads it: `key=value` between commas, `,,` for a comma in a value, the
 * first key left out where `implied` names it, or a JSON object. Members of members are joined by dots,
 * switches are `on` and `off`, null is empty. Throws `Inexpressible` for a member given twice or without a
 * value.
 */
export function parseOptionString(option: string, text: string, implied?: string): Map<string, string> {
  const members = new Map<string, string>()
  const add = (key: string, value: string): void => {
    if (members.has(key)) throw new Inexpressible(`${option} ${key}, given twice`)
    members.set(key, value)
  }
  if (text.startsWith("{")) {
    for (const [key, value] of flatten(option, JSON.parse(text) as object)) add(key, value)
    return members
  }
  for (const [index, item] of splitAtCommas(text).entries()) {
    const equals = item.indexOf("=")
    if (equals > 0) add(item.slice(0, equals), item.slice(equals + 1))
    else if (index === 0 && implied !== undefined && item !== "") add(implied, item)
    else throw new Inexpressible(`${option} ${shown(item)}`)
  }
  return members
}

/** Throws `Inexpressible` naming the first member that is not allowed. */
export function allowOnly(
  option: string,
  members: ReadonlyMap<string, string>,
  allowed: Readonly<Record<string, RegExp>>,
): void {
  for (const [key, value] of members) {
    const pattern = Object.hasOwn(allowed, key) ? allowed[key] : undefined
    if (pattern === undefined) throw new Inexpressible(`${option} ${shown(key)}`)
    if (!pattern.test(value)) throw new Inexpressible(`${option} ${key}=${shown(value)}`)
  }
}

/** A caller's text for a message: short, and in one line. */
export function shown(text: string): string {
  return JSON.stringify(text.slice(0, 80)).slice(1, -1)
}

function splitAtCommas(text: string): string[] {
  const items: string[] = []
  let item = ""
  for (let at = 0; at < text.length; at++) {
    if (text[at] !== ",") item += text[at]
    else if (text[at + 1] === "," && item.includes("=")) {
      item += ","
      at++
    } else {
      items.push(item)
      item = ""
    }
  }
  return [...items, item]
}

function flatten(option: string, value: object, prefix = ""): [string, string][] {
  return Object.entries(value).flatMap(([name, member]: [string, unknown]): [string, string][] => {
    const key = prefix + name
    if (Array.isArray(member)) throw new Inexpressible(`${option} ${shown(key)}`)
    if (member === null) return [[key, ""]]
    if (typeof member === "object") return flatten(option, member, `${key}.`)
    if (typeof member === "boolean") return [[key, member ? "on" : "off"]]
    return [[key, typeof member === "string" ? member : JSON.stringify(member)]]
  })
}
