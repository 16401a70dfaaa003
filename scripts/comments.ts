import { widthMax, wideLines, wrap } from "./wrap.ts"

/** A comment on lines of its own. Neighbouring `//` lines are one. */
export interface Comment {
  /** The index of its first line. */
  readonly at: number
  readonly indent: string
  readonly kind: "line" | "block"
  /** As they stand in the file. */
  readonly raw: readonly string[]
  /** Without what makes them a comment. */
  readonly text: readonly string[]
}

/** A comment never follows code on its line, so the start of a line tells whether it is one. */
export function commentsOf(source: readonly string[]): Comment[] {
  const comments: Comment[] = []
  let at = 0
  while (at < source.length) {
    const raw = commentAt(source, at)
    const [, indent = "", opening] = /^(\s*)(\/\/)?/.exec(source[at] ?? "") ?? []
    const kind = opening === undefined ? "block" : "line"
    if (raw.length > 0) comments.push({ at, indent, kind, raw, text: raw.map(textOf) })
    at += Math.max(raw.length, 1)
  }
  return comments
}

function commentAt(source: readonly string[], at: number): readonly string[] {
  const rest = source.slice(at)
  const isLine = (line: string): boolean => /^\s*\/\//.test(line)
  if (isLine(rest[0] ?? "")) {
    const end = rest.findIndex((line) => !isLine(line))
    return end === -1 ? rest : rest.slice(0, end)
  }
  return /^\s*\/\*/.test(rest[0] ?? "")
    ? rest.slice(0, rest.findIndex((line) => line.includes("*/")) + 1)
    : []
}

function textOf(line: string): string {
  return line.replace(/^\s*(\/\/|\/\*+|\*(?!\/)|(?=\*\/)) ?/, "").replace(/ ?\*\/$/, "")
}

export function wideLinesOf({ at, raw }: Comment): number[] {
  return wideLines(raw, widthMax).map((index) => at + index)
}

export function wrapComment(comment: Comment): readonly string[] {
  if (wideLinesOf(comment).length === 0) return comment.raw
  const { indent, kind, text } = comment
  if (kind === "line")
    return wrap(text, widthMax - indent.length - 3).map((line) => `${indent}// ${line}`.trimEnd())
  const inner = text.filter((line, index) => line !== "" || (index > 0 && index < text.length - 1))
  const lines = wrap(inner, widthMax - indent.length - 3).map((line) => `${indent} * ${line}`.trimEnd())
  return [`${indent}/**`, ...lines, `${indent} */`]
}

/** True for a comment whose first word hides its subject. */
export function opensBadly(comment: Comment): boolean {
  return /^(What(ever)?|Who(m|se|ever)?|Where(ver)?|Whether|Of|Likewise|None|Nobody|Somebody|Anybody)\b/.test(
    comment.text.join(" ").trim(),
  )
}

/** How often comments say "what", for each 100 of their words. */
export function whatShare(comments: readonly Comment[]): number {
  const words = comments.flatMap(({ text }) => text.join(" ").match(/[a-z'’]+/gi) ?? [])
  return (100 * words.filter((word) => word.toLowerCase() === "what").length) / words.length
}
