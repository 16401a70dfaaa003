import { globSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { type Comment, commentsOf, opensBadly, whatShare, wideLinesOf, wrapComment } from "./comments.ts"
import { checkout } from "./setup/paths.ts"
import { wideLines, widthMax, wrap } from "./wrap.ts"

// Holds the width of lines, the size of folders and the wording of comments.
// `--fix` wraps and records a better wording; `--list` shows the comments to reword.

const filesPerFolderMax = 20
const recordFile = "scripts/style-record.json"

const exclude = ["**/node_modules/**"]
const sources = globSync("{apps,packages,tests,bench,scripts}/**/*.{ts,mjs}", { cwd: checkout, exclude })
const pages = globSync("{*,{docs,apps,packages,tests,bench}/**/*}.md", { cwd: checkout, exclude })

if (process.argv.includes("--fix")) fix()
const comments = sources.flatMap((file) => commentsOf(linesOf(file)).map((comment) => ({ file, ...comment })))
const opening = ofProduct().filter(opensBadly)
const counted: Record<string, number> = {
  "comments that open with What, Who, Where, Whether, Of, Likewise or None": opening.length,
  'uses of "what" in 100 words of comments': Math.ceil(100 * whatShare(ofProduct())) / 100,
}
const recorded = JSON.parse(read(recordFile)) as typeof counted
if (process.argv.includes("--fix")) write(recordFile, `${JSON.stringify(lowest(), undefined, 2)}\n`)
if (process.argv.includes("--list"))
  for (const { file, at, text } of opening) console.log(`${file}:${at + 1}: ${text.join(" ").trim()}`)

const problems = [...wide(), ...fullFolders(), ...worse()]
for (const problem of problems) console.error(problem)
process.exitCode = problems.length === 0 ? 0 : 1

function wide(): string[] {
  return [
    ...comments.flatMap((comment) => wideLinesOf(comment).map((at) => `${comment.file}:${at + 1}`)),
    ...pages.flatMap((file) => wideLines(linesOf(file), widthMax).map((at) => `${file}:${at + 1}`)),
  ].map((place) => `${place}: wider than ${widthMax} characters`)
}

function fullFolders(): string[] {
  const files = sources.filter((file) => !file.endsWith(".test.ts"))
  return [...Map.groupBy(files, dirname)]
    .filter(([, inside]) => inside.length > filesPerFolderMax)
    .map(
      ([folder, inside]) =>
        `${folder}: ${inside.length} source files, more than ${filesPerFolderMax}; give those that belong together a folder`,
    )
}

function worse(): string[] {
  return Object.entries(counted)
    .filter(([name, count]) => count > (recorded[name] ?? 0))
    .map(
      ([name, count]) =>
        `${count} ${name}, more than the ${recorded[name]} of ${recordFile}: open with the subject and name the actor (\`node scripts/style.ts --list\` shows each; \`npm run fix\` records fewer)`,
    )
}

/** The record only goes down. */
function lowest(): typeof counted {
  return Object.fromEntries(
    Object.entries(counted).map(([name, count]) => [name, Math.min(count, recorded[name] ?? count)]),
  )
}

function ofProduct(): (Comment & { file: string })[] {
  return comments.filter(
    ({ file }) => /^(apps|packages)\//.test(file) && !/^packages\/testing\/|\.test\.ts$/.test(file),
  )
}

function fix(): void {
  for (const file of pages) write(file, wrap(linesOf(file), widthMax).join("\n"))
  for (const file of sources) {
    const lines = linesOf(file)
    // From the end, so that the places of those before stay true.
    for (const comment of commentsOf(lines).toReversed())
      lines.splice(comment.at, comment.raw.length, ...wrapComment(comment))
    write(file, lines.join("\n"))
  }
}

function linesOf(file: string): string[] {
  return read(file).split("\n")
}

function read(file: string): string {
  return readFileSync(join(checkout, file), "utf8")
}

function write(file: string, text: string): void {
  if (read(file) !== text) writeFileSync(join(checkout, file), text)
}
