import type { Monitor } from "../monitor/qmp.ts"

/**
 * Finds devices that no command line tells of: those that were plugged in later, by QMP. Gives the first
 * device that is not among `devices` (QOM types, with as many of each as there may be), undefined when there
 * is none.
 */
export async function unnamedDevice(
  monitor: Monitor,
  devices: readonly string[],
): Promise<string | undefined> {
  const expected = [...devices]
  for (const path of ["/machine/peripheral", "/machine/peripheral-anon"]) {
    const children = await monitor.execute<{ name: string; type: string }[]>("qom-list", { path })
    for (const { name, type } of children) {
      const device = /^child<(.+)>$/.exec(type)?.[1]
      if (device === undefined) continue
      const at = expected.indexOf(device)
      if (at === -1) return `the device ${name} (${device}), which was plugged in later`
      expected.splice(at, 1)
    }
  }
  return expected[0] === undefined ? undefined : `the device ${expected[0]}, which was unplugged`
}
