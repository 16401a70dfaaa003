import type { Algorithm } from "@stillframe/domain/compression"
import { afterAll, beforeAll, describe } from "vitest"
import { chooseCodec, codecFor, type CodecId, codecIds, loads } from "./codecs.ts"

/** The same tests for each codec, run as on a machine that has no better one. */
export function describeEachCodec(tests: (algorithm: Algorithm, codec: CodecId) => void): void {
  for (const algorithm of ["zstd", "lz4"] as const) {
    const best = codecFor(algorithm)
    for (const codec of codecIds[algorithm]) {
      const reason = loads(codec) ? "" : " (skipped: it does not load on this machine)"
      describe.skipIf(reason)(`${algorithm} by ${codec}${reason}`, () => {
        beforeAll(() => chooseCodec(algorithm, codec))
        afterAll(() => chooseCodec(algorithm, best))
        tests(algorithm, codec)
      })
    }
  }
}
