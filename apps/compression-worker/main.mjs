// Starts src/main.ts where Node can run it: an old Node fails on the first .ts file before any of its code
// runs.
import { requireRecentNode } from "@stillframe/runtime/node-version"

requireRecentNode()
await import("./src/main.ts")
