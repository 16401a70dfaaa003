import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { compressFile } from "../compress.ts"
import { anyContent } from "../frames/any-content.ts"
import { liblz4FrameStream } from "./codec.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-damaged-lz4-"))
afterAll(() => rmSync(folder, { recursive: true }))
const work = { threads: 2, signal: new AbortController().signal }
const [source, packed] = [join(folder, "source"), join(folder, "packed")]
const content = Buffer.alloc(600_000, "content of three frames, ")

const library = liblz4FrameStream()
library?.[Symbol.dispose]()
const reason = library === undefined ? " (skipped: no liblz4.so.1)" : ""

test.skipIf(reason)(
  `a damaged LZ4 frame gives nothing to a reader, by table or from a pipe${reason}`,
  async () => {
    writeFileSync(source, content)
    await compressFile({ source, destination: packed, algorithm: "lz4", level: 0, ...work })
    const damaged = readFileSync(packed)
    // A letter of the first frame's content.
    damaged[damaged.indexOf("content")]! ^= 1
    writeFileSync(packed, damaged)
    async function* pipe(): AsyncGenerator<Buffer> {
      yield damaged
    }

    for (const file of [packed, pipe()]) {
      const given: Uint8Array[] = []
      const reading = (async () => {
        for await (const piece of anyContent(file, work)) given.push(piece)
      })()

      await expect(reading).rejects.toMatchObject({ code: "corrupted" })
      expect(given).toEqual([])
    }
  },
)
