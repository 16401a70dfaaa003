import { spawnSync, type SpawnSyncOptionsWithStringEncoding, type SpawnSyncReturns } from "node:child_process"
import { checkout } from "./setup/paths.ts"

// All that can be said about the code without running it; `--fix` repairs what tools can repair. Each command
// is spelled out as a call, which is how the search for unused dependencies sees that it is used.

const options: SpawnSyncOptionsWithStringEncoding = {
  cwd: checkout,
  encoding: "utf8",
  env: { ...process.env, TURBO_TELEMETRY_DISABLED: "1" },
  maxBuffer: 64 << 20,
}

const checks: Record<string, () => SpawnSyncReturns<string>> = {
  "oxfmt --check": () => spawnSync("oxfmt", ["--check"], options),
  "oxlint --deny-warnings": () => spawnSync("oxlint", ["--deny-warnings"], options),
  tsc: () => spawnSync("tsc", [], options),
  "turbo boundaries": () => spawnSync("turbo", ["boundaries"], options),
  style: () => spawnSync(process.execPath, ["scripts/style.ts"], options),
  notices: () => spawnSync(process.execPath, ["scripts/notices.ts", "--check"], options),
  "knip --treat-config-hints-as-errors": () => spawnSync("knip", ["--treat-config-hints-as-errors"], options),
}
const fixes: typeof checks = {
  notices: () => spawnSync(process.execPath, ["scripts/notices.ts"], options),
  style: () => spawnSync(process.execPath, ["scripts/style.ts", "--fix"], options),
  oxfmt: () => spawnSync("oxfmt", [], options),
  "oxlint --fix": () => spawnSync("oxlint", ["--fix"], options),
}

const steps = Object.entries(process.argv.includes("--fix") ? fixes : checks)
const failed = steps.filter(([name, run]) => !succeeds(name, run)).map(([name]) => name)
if (failed.length > 0) {
  console.error(`Failed: ${failed.join(", ")}. \`npm run fix\` repairs formatting and some lint.`)
  process.exitCode = 1
}

function succeeds(name: string, run: () => SpawnSyncReturns<string>): boolean {
  const startedMs = performance.now()
  const { status, stdout, stderr, error } = run()
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  console.error(`${status === 0 ? "ok    " : "FAILED"} ${name} (${seconds} s)`)
  if (status !== 0) console.error(`${stdout ?? ""}${stderr ?? ""}${error?.message ?? ""}`)
  return status === 0
}
