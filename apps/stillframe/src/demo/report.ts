const taken: [string, string][] = []

/** Does a step and prints how long it took; `table` shows all of them again. */
export async function report<T>(step: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now()
  const result = await work()
  const time = `${((performance.now() - startedAt) / 1_000).toFixed(2)} s`
  taken.push([step, time])
  console.log(`${time.padStart(9)}  ${step}`)
  return result
}

/** Prints what took how long, then `results`. */
export function table(results: readonly (readonly [string, string])[]): void {
  console.log()
  for (const [name, value] of [...taken, ...results]) console.log(`${name.padEnd(52, " .")}  ${value}`)
}
