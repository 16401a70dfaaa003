/**
 * State that the threads of one run share. They take batches in order by an atomic counter and hand each
 * other the turn without the main thread, whose event loop stays free.
 */
export interface Control {
  /** Cells, see below. */
  cells: Int32Array<SharedArrayBuffer>
  /** The position in the destination of the batch whose turn it is. */
  offset: BigInt64Array<SharedArrayBuffer>
}

const cell = { claimed: 0, turn: 1, stopped: 2, epoch: 3, framesDone: 4 } as const

/** Thrown in a thread when the run was stopped from outside: not a failure of its own. */
export const stopped = Symbol("stopped")

export function createControl(): Control {
  return {
    cells: new Int32Array(new SharedArrayBuffer(4 * Object.keys(cell).length)),
    offset: new BigInt64Array(new SharedArrayBuffer(8)),
  }
}

/** The next batch nobody has, or undefined when all are taken. Throws `stopped`. */
export function claim(control: Control, batchCount: number): number | undefined {
  throwIfStopped(control)
  const batch = Atomics.add(control.cells, cell.claimed, 1)
  return batch < batchCount ? batch : undefined
}

/** How many batches have had their turn. */
export function turn(control: Control): number {
  return Atomics.load(control.cells, cell.turn)
}

export function passTurn(control: Control): void {
  Atomics.add(control.cells, cell.turn, 1)
  wake(control)
}

/** Blocks this thread until `condition` holds; whoever makes it true must call `wake`. Throws `stopped`. */
export function waitUntil(control: Control, condition: () => boolean): void {
  for (;;) {
    // Read before the condition: a change in between makes the wait return at once.
    const epoch = Atomics.load(control.cells, cell.epoch)
    throwIfStopped(control)
    if (condition()) return
    Atomics.wait(control.cells, cell.epoch, epoch)
  }
}

export function wake(control: Control): void {
  Atomics.add(control.cells, cell.epoch, 1)
  Atomics.notify(control.cells, cell.epoch)
}

/** Makes every thread of the run end at its next frame. */
export function stop(control: Control): void {
  Atomics.store(control.cells, cell.stopped, 1)
  wake(control)
}

export function throwIfStopped(control: Control): void {
  if (Atomics.load(control.cells, cell.stopped)) throw stopped
}

export function countFrame(control: Control): void {
  Atomics.add(control.cells, cell.framesDone, 1)
}

export function framesDone(control: Control): number {
  return Atomics.load(control.cells, cell.framesDone)
}
