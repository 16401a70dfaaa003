const baseMs = 30_000
/** 16 MiB/s: a slow network file system, not a guess of the usual. */
const msPerMib = 64

/** How long any answer may take: requests queue behind a save, whose time grows with the VM's memory. */
export function answerDeadlineMs({ memoryMib }: { memoryMib: number }): number {
  return baseMs + memoryMib * msPerMib
}
