#!/usr/bin/env node
// `npx stillframe <verb>`: runs under this checkout's own Node, whatever Node it was called with.
import { fileURLToPath } from "node:url"

const program = fileURLToPath(new URL("../src/main.ts", import.meta.url))
process.argv.splice(2, 0, "start", "--", "node", program)
await import("../../../scripts/with-node.mjs")
