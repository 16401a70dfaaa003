import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const checkout = join(import.meta.dirname, "../../..")

/** A block of commands in a page, and the comment above it that says when it cannot run. */
export interface Commands {
  /** The page and the line of the block's first command. */
  readonly at: string
  readonly text: string
  /** Why no test can run it. */
  readonly notRun?: string
  /** A feature of the host. */
  readonly needs?: string
}

/** The README and every page of `docs/` that has commands, each with its blocks in order. */
export function pagesWithCommands(): Map<string, readonly Commands[]> {
  const guides = readdirSync(join(checkout, "docs")).filter((name) => name.endsWith(".md"))
  const pages = ["README.md", ...guides.map((name) => `docs/${name}`)].toSorted()
  const blocks = pages.map((page) => [page, commandsOf(page)] as const)
  return new Map(blocks.filter(([, found]) => found.length > 0))
}

const block = /(?:<!-- (not run: |needs )(.+) -->\n)?^( *)```sh\n([^]*?)^\3```$/gm

function commandsOf(page: string): Commands[] {
  const text = readFileSync(join(checkout, page), "utf8")
  return [...text.matchAll(block)].map(({ 0: all, 1: mark, 2: words = "", 4: commands = "", index }) => {
    const line = text.slice(0, index + all.indexOf("```sh")).split("\n").length + 1
    const reason = mark === undefined ? {} : mark === "needs " ? { needs: words } : { notRun: words }
    return { at: `${page}:${line}`, text: commands, ...reason }
  })
}

/** The first block of a language in a page. */
export function exampleIn(page: string, language: string): string {
  const text = readFileSync(join(checkout, page), "utf8")
  const found = new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, "m").exec(text)?.[1]
  if (found === undefined) throw new Error(`${page} has no example in ${language}`)
  return found
}
