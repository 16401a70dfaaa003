import { expect, test } from "vitest"
import { commentsOf, opensBadly, wideLinesOf, wrapComment } from "./comments.ts"
import { wideLines, wrap } from "./wrap.ts"

const width = 20

test("a paragraph and a list item are filled to the width, and nothing else is touched", () => {
  const page = [
    "# A heading that is wider",
    "",
    "A paragraph that is",
    "wider than twenty characters.",
    "",
    "- An item that is wider than it",
    "- short",
    "",
    "| a table that is wider than it |",
    "```",
    "code that is wider than it",
    "```",
  ]

  expect(wrap(page, width)).toEqual([
    "# A heading that is wider",
    "",
    "A paragraph that is",
    "wider than twenty",
    "characters.",
    "",
    "- An item that is",
    "  wider than it",
    ...page.slice(6),
  ])
})

test("no line that was filled begins like an item, and code in backticks stays whole", () => {
  expect(wrap(["Twenty characters 1 - 2 and `a b c d`"], width)).toEqual([
    "Twenty characters",
    "1 - 2 and `a b c d`",
  ])
  expect(wrap(["Twenty characters to - 2"], width)).toEqual(["Twenty characters", "to - 2"])
})

test("the address of a link has no width", () => {
  expect(wideLines(["[a link](https://example.com/long/path)"], width)).toEqual([])
})

test("a comment that is too wide is wrapped where it stands", () => {
  const wide = "long ".repeat(24).trim()
  const [block, line] = commentsOf([`  /** ${wide} */`, "  const a = 1", `  // ${wide}`])

  expect(block && wideLinesOf(block)).toEqual([0])
  expect(block && wrapComment(block)).toEqual([
    "  /**",
    `   * ${"long ".repeat(21).trim()}`,
    "   * long long long",
    "   */",
  ])
  expect(line && wrapComment(line)).toEqual([`  // ${"long ".repeat(21).trim()}`, "  // long long long"])
})

test.each([
  [["/** What it is. */"], true],
  [["// Whether it is one,", "// or not."], true],
  [["/**", " * Of the file.", " */"], true],
  [["// Says what it is."], false],
  [["/** Whole files. */"], false],
])("%j opens badly: %s", (source, expected) => {
  expect(commentsOf(source).map(opensBadly)).toEqual([expected])
})
