/** The one width of code, comments and Markdown. */
export const widthMax = 110

/** The address of a link does not count, because it cannot be wrapped. */
function widthOf(text: string): number {
  return text.replaceAll(/\]\([^)]*\)|https?:[^\s`)]+/g, "]").length
}

/** The numbers of the lines that are too wide. Tables and code blocks cannot be wrapped. */
export function wideLines(lines: readonly string[], width: number): number[] {
  let isCode = false
  return lines.flatMap((text, index) => {
    if (/^\s*```/.test(text)) isCode = !isCode
    return isCode || /^\s*\|/.test(text) || widthOf(text) <= width ? [] : [index]
  })
}

/** Fills the paragraphs and list items of Markdown that have a line that is too wide. */
export function wrap(lines: readonly string[], width: number): string[] {
  const wide = new Set(wideLines(lines, width))
  return paragraphsOf(lines).flatMap(({ from, to, isText }) => {
    const paragraph = lines.slice(from, to)
    const isWide = paragraph.some((_, index) => wide.has(from + index))
    return isText && isWide ? fill(paragraph, width) : paragraph
  })
}

function paragraphsOf(lines: readonly string[]): { from: number; to: number; isText: boolean }[] {
  const paragraphs: { from: number; to: number; isText: boolean }[] = []
  let isCode = false
  for (const [index, text] of lines.entries()) {
    const isFence = /^\s*```/.test(text)
    const isText = !isCode && !isFence && !/^\s*([|#<]|\[[^\]]*\]:|$)/.test(text)
    if (isFence) isCode = !isCode
    const last = paragraphs.at(-1)
    if (last?.isText === true && isText && !itemStart.test(text)) last.to = index + 1
    else paragraphs.push({ from: index, to: index + 1, isText })
  }
  return paragraphs
}

const itemStart = /^\s*([-*+]|\d+\.) +/

function fill(paragraph: readonly string[], width: number): string[] {
  const text = paragraph.map((line) => line.trim()).join(" ")
  const first = (itemStart.exec(paragraph[0] ?? "") ?? /^\s*/.exec(paragraph[0] ?? ""))?.[0] ?? ""
  const indent = " ".repeat(first.length)
  // A code span stays whole, and no line may begin like a list item.
  const words = text.slice(first.trimStart().length).match(/(?:`[^`]*`|\S)+(?: (?:[-*+]|\d+\.)(?= ))*/g) ?? []
  const filled: string[] = []
  let line = first
  for (const word of words) {
    const isEmpty = line === first || line === indent
    if (!isEmpty && line.length + 1 + word.length > width) {
      filled.push(line)
      line = `${indent}${word}`
    } else line += isEmpty ? word : ` ${word}`
  }
  return [...filled, line]
}
