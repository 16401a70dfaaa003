import { existsSync, globSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { expect, test } from "vitest"

const checkout = join(import.meta.dirname, "../../..")
const pages = globSync(["*.md", "docs/**/*.md"], { cwd: checkout }).map((page) => join(checkout, page))

/** Links in words, without those of other sites and those in blocks of code. */
function linksOf(page: string): string[] {
  const words = readFileSync(page, "utf8").replaceAll(/^ *```[^]*?^ *```$/gm, "")
  return [...words.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, link = ""]) => link)
    .filter((link) => !link.includes("://"))
}

/** The places of a page that a link can name, as GitHub makes them of headings. */
function anchorsOf(page: string): string[] {
  const headings = readFileSync(page, "utf8").matchAll(/^#+ (.+)$/gm)
  return [...headings].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, "")
      .replaceAll(" ", "-"),
  )
}

function isBroken(page: string, link: string): boolean {
  const [file = "", anchor] = link.split("#")
  const target = file === "" ? page : join(dirname(page), file)
  if (!existsSync(target)) return true
  return anchor !== undefined && !anchorsOf(target).includes(anchor)
}

test("every link of a page leads to a file of the checkout, and to a heading of it", () => {
  const links = pages.flatMap((page) => linksOf(page).map((link) => ({ page, link })))

  const broken = links.filter(({ page, link }) => isBroken(page, link))

  expect(broken.map(({ page, link }) => `${relative(checkout, page)}: ${link}`)).toEqual([])
  expect(links.length).toBeGreaterThan(50)
})
