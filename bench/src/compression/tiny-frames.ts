import { closeSync, openSync, writeSync } from "node:fs"
import { join } from "node:path"
import { lz4Part, type Part, zstdPart } from "@stillframe/codec/foreign/other-writers"
import { verifyAny } from "@stillframe/codec/frames/any-file"
import type { Step } from "./steps.ts"

const frameCount = 1_000_000
const differentFrames = 1_000

/**
 * A file as a logger writes it that compresses each line by itself, verified by us and tested by the tool.
 */
export function tinyFramesStep(algorithm: "zstd" | "lz4", dir: string, threads: number): Step {
  const path = join(dir, `a-million-frames.${algorithm}`)
  const write = { zstd: (line: Buffer) => zstdPart(line, { checksum: true }), lz4: lz4Part }[algorithm]
  writeFrames(path, write)
  const script = `
    import { verifyAny } from ${JSON.stringify(import.meta.resolve("@stillframe/codec/frames/any-file"))}
    await verifyAny(${JSON.stringify(path)}, { threads: ${threads}, signal: new AbortController().signal })`
  return {
    ours: () => verifyAny(path, { threads, signal: new AbortController().signal }),
    oursApart: [process.execPath, "--input-type=module", "--eval", script],
    theirs: [algorithm, "-tq", path],
  }
}

function writeFrames(path: string, write: (line: Buffer) => Part): void {
  const frames = Array.from({ length: differentFrames }, (_, index) =>
    write(Buffer.from(`2026-12-01T02:16:37Z host service[${index}]: request ${index * 7_919} took 12 ms\n`)),
  )
  const piece = Buffer.concat(frames.map(({ bytes }) => bytes))
  const fd = openSync(path, "w")
  try {
    for (let done = 0; done < frameCount; done += differentFrames) writeSync(fd, piece)
  } finally {
    closeSync(fd)
  }
}
