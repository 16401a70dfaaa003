#!/usr/bin/env node
// `npx stillframe <verb>`: runs under this checkout's own Node, whatever Node it was called with.
import { join } from "node:path"
import process from "node:process"
import { fileURLToPath, pathToFileURL } from "node:url"

const checkout = fileURLToPath(new URL("../../../", import.meta.url))
const withNode = join(checkout, "scripts/with-node.mjs")
const program = join(checkout, "apps/stillframe/main.mjs")
// In this process: one more between the caller and the program would have to hand signals on, too.
process.argv.splice(1, 1, withNode, "start", "--", "node", program)
await import(pathToFileURL(withNode).href)
