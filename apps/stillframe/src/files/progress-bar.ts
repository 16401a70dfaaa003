import type { OnProgress } from "@stillframe/codec/compress"

const width = 30
const mib = 1024 ** 2

/**
 * Draws on a terminal how far the work is; elsewhere nothing. `end` leaves the line to whatever is printed
 * next.
 */
export function progressBar(terminal: NodeJS.WriteStream): { onProgress: OnProgress; end(): void } {
  if (!terminal.isTTY) return { onProgress: () => undefined, end: () => undefined }
  const startedAt = performance.now()
  return {
    onProgress(done, total) {
      const share = total === 0 ? 1 : done / total
      const bar = "#".repeat(Math.round(share * width)).padEnd(width)
      const perSecond = done / mib / ((performance.now() - startedAt) / 1_000)
      terminal.write(
        `\r[${bar}] ${String(Math.floor(share * 100)).padStart(3)} %  ${perSecond.toFixed(0)} MiB/s `,
      )
    },
    // Back to the beginning of the line, and what is on it erased.
    end: () => void terminal.write("\r\u001B[K"),
  }
}
