/**
 * A line of the heartbeat guest, printed each time that it has added its memory up, `<tick> <sum>` in
 * 8 hex digits each.
 */
export interface Heartbeat {
  tick: number
  sum: string
}

/**
 * The whole lines of a serial log; an unfinished last one is left out. Any other line has `NaN` for its tick.
 */
export function heartbeats(log: string): Heartbeat[] {
  return log
    .split("\n")
    .slice(0, -1)
    .map((line) => {
      const [, tick = "", sum = ""] = /^([0-9a-f]{8}) ([0-9a-f]{8})$/.exec(line) ?? []
      return { tick: Number.parseInt(tick, 16), sum }
    })
}

/**
 * The places at which the ticks do not go on by one with the same sum, as two lines for people; undefined
 * when nothing is wrong.
 */
export function heartbeatGap(log: string): string | undefined {
  const beats = heartbeats(log)
  const [first] = beats
  if (first === undefined) return "no line at all"
  const at = beats.findIndex(({ tick, sum }, index) => tick !== first.tick + index || sum !== first.sum)
  if (at === -1) return undefined
  return log
    .split("\n")
    .slice(Math.max(0, at - 1), at + 1)
    .join(", then ")
}
