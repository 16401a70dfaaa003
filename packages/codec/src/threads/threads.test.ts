import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { expect, test } from "vitest"

const threads = 2
/** koffi and lz4-napi. */
const librariesPerThread = 2

/** In each thread: says when a native library has been loaded. */
const tellLoads = `data:text/javascript,
  import { writeSync } from "node:fs"
  import { isMainThread } from "node:worker_threads"
  const { dlopen } = process
  process.dlopen = (...words) => {
    dlopen(...words)
    if (!isMainThread) writeSync(1, "loaded\\n")
  }`

test("threads have loaded their native libraries before the process that gives them back may end", async () => {
  const program = `
    import { writeSync } from "node:fs"
    import { warmThreads } from ${JSON.stringify(new URL("threads.ts", import.meta.url).href)}
    {
      await using _threads = warmThreads(${threads})
    }
    writeSync(1, "given back\\n")
    process.exit(0)`

  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], {
    env: { NODE_OPTIONS: `--import="${encodeURI(tellLoads)}"` },
  })

  const loads = Array.from({ length: threads * librariesPerThread }, () => "loaded")
  expect(stdout.trim().split("\n")).toEqual([...loads, "given back"])
})
