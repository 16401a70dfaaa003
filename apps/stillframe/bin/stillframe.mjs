#!/usr/bin/env node
// `npx stillframe <verb>`: runs under this checkout's own Node, whatever Node it was called with.
import { spawnSync } from "node:child_process"
import { join } from "node:path"

const checkout = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../../..")
const withNode = join(checkout, "scripts/with-node.mjs")
const program = join(checkout, "apps/stillframe/src/main.ts")
const words = [withNode, "start", "--", "node", program, ...process.argv.slice(2)]
const { status } = spawnSync(process.execPath, words, { stdio: "inherit" })
process.exitCode = status ?? 1
