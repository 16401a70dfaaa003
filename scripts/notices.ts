import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { checkout } from "./setup/paths.ts"
import { widthMax, wrap } from "./wrap.ts"

// Whose work comes with Stillframe: `docs/third-party-notices.md`, from the lock file. `--check` says whether
// it is true.

interface Locked {
  readonly packages: Readonly<
    Record<string, { readonly license?: string; readonly dev?: boolean; readonly link?: boolean }>
  >
}

const page = join(checkout, "docs/third-party-notices.md")
const { packages } = JSON.parse(readFileSync(join(checkout, "package-lock.json"), "utf8")) as Locked

const shipped = Object.entries(packages)
  .filter(([path, { dev, link }]) => path.includes("node_modules/") && dev !== true && link !== true)
  .map(
    ([path, { license }]) =>
      [path.split("node_modules/").at(-1) ?? path, license ?? "see the package"] as const,
  )
const byLicense = Map.groupBy(shipped, ([, license]) => license)

const written = `# Third-party notices

Stillframe is under the Apache License 2.0. It comes with these packages from npm, each under its own licence, whose text lies in
the package:

${[...byLicense]
  .toSorted(([one], [other]) => one.localeCompare(other, "en"))
  .map(([license, ofIt]) => `- **${license}**: ${namesOf(ofIt)}`)
  .join("\n")}

The set-up of \`npm run demo\`, \`npm test\` and \`npm start\` fetches QEMU (GPL-2.0), Redis (BSD-3-Clause, tests only) and a Linux kernel
(GPL-2.0) as packages of the machine's own distribution; none of them is part of Stillframe.
`

const text = wrap(written.split("\n"), widthMax).join("\n")

if (!process.argv.includes("--check")) writeFileSync(page, text)
else if (readFileSync(page, "utf8") !== text) {
  console.error("docs/third-party-notices.md does not fit the lock file; `npm run fix` writes it again")
  process.exitCode = 1
}

function namesOf(ofIt: readonly (readonly [string, string])[]): string {
  return [...new Set(ofIt.map(([name]) => name))]
    .toSorted((one, other) => one.localeCompare(other, "en"))
    .join(", ")
}
