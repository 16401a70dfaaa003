import { compressFile } from "@stillframe/codec/compress"
import { decompressFile } from "@stillframe/codec/decompress"
import { verifyFile } from "@stillframe/codec/verify"
import type { Algorithm } from "@stillframe/domain/compression"
import type { Command } from "./cost.ts"

/** The same work by our codec and by the algorithm's command line tool. Neither output exists before. */
export interface Step {
  readonly ours: () => Promise<unknown>
  /** Ours alone in a process of its own. */
  readonly oursApart: Command
  readonly theirs: Command
  readonly outputs?: Sides | undefined
}

/** A path of each side. */
export interface Sides {
  readonly ours: string
  readonly theirs: string
}

const codec = {
  compressFile: ["@stillframe/codec/compress", compressFile],
  verifyFile: ["@stillframe/codec/verify", verifyFile],
  decompressFile: ["@stillframe/codec/decompress", decompressFile],
} as const

interface Work {
  readonly algorithm: Algorithm
  readonly level: number
  readonly threads: number
}

/** The tool uses as many threads as ours where it can. */
export function compressStep(source: string, outputs: Sides, work: Work): Step {
  const { algorithm, threads } = work
  const options = algorithm === "zstd" ? ["-1", `-T${threads}`] : ["-1"]
  return {
    ...ourCall("compressFile", { source, destination: outputs.ours, ...work }),
    theirs: [algorithm, ...options, "-q", source, ...outputTo(algorithm, outputs.theirs)],
    outputs,
  }
}

export function verifyStep(packed: Sides, { algorithm, threads }: Work, sha256: string): Step {
  return {
    ...ourCall("verifyFile", { path: packed.ours, sha256, threads }),
    theirs: [algorithm, "-tq", packed.theirs],
  }
}

/** `sync`: whether ours ends with the file on the device, which the tool's never is. */
export function decompressStep(
  packed: Sides,
  outputs: Sides,
  { algorithm, threads, sync }: Work & { sync: boolean },
): Step {
  return {
    ...ourCall("decompressFile", { source: packed.ours, destination: outputs.ours, threads, sync }),
    theirs: [algorithm, "-dq", packed.theirs, ...outputTo(algorithm, outputs.theirs)],
    outputs,
  }
}

function ourCall<Name extends keyof typeof codec>(
  name: Name,
  options: Omit<Parameters<(typeof codec)[Name][1]>[0], "signal">,
): Pick<Step, "ours" | "oursApart"> {
  const [module, call] = codec[name]
  const script = `
    import { ${name} } from ${JSON.stringify(import.meta.resolve(module))}
    await ${name}({ ...${JSON.stringify(options)}, signal: new AbortController().signal })`
  const run = call as (options: object) => Promise<unknown>
  return {
    ours: () => run({ ...options, signal: new AbortController().signal }),
    oursApart: [process.execPath, "--input-type=module", "--eval", script],
  }
}

function outputTo(algorithm: Algorithm, path: string): string[] {
  return algorithm === "zstd" ? ["-o", path] : [path]
}
