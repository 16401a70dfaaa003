import { readFileSync } from "node:fs"
import { setTimeout as delay } from "node:timers/promises"
import { inTransaction } from "@stillframe/db/client"
import { appendSnapshotEvent, listEvents } from "@stillframe/db/events/events"
import { createWebhook, deleteWebhook } from "@stillframe/db/webhooks/webhooks"
import { sql } from "kysely"
import { byTurns, median, printComparisons, wallClock } from "../measure.ts"
import { startScript } from "../program.ts"
import { cpuMs } from "./cpu.ts"
import { finishedSnapshot } from "./finished-snapshot.ts"
import type { Sides } from "./sides.ts"

/** 100,000 deliveries after the warm-up, which has as many as a round. */
const rate: Rate = { rounds: 10, events: 1_000, warmUps: 2, path: "/" }
/** What most receivers are like: then both sides wait, and it counts that all places are taken. */
const slowRate: Rate = { rounds: 5, events: 200, warmUps: 1, path: "/slow/" }
const webhooks = 10
/** As many attempts at once as the dispatcher makes: 16 to each webhook. */
const concurrency = 16 * webhooks
const waitMsMax = 120_000

interface Rate {
  readonly rounds: number
  /** In each round, to each webhook. */
  readonly events: number
  readonly warmUps: number
  /** Of the receivers. */
  readonly path: string
}

/**
 * How many are delivered in a second, what of the processors that takes, and whether memory stays where it
 * is.
 */
export async function benchRates(sides: Sides, resources: AsyncDisposableStack): Promise<void> {
  const script = resources.use(await startScript("bench/src/webhooks/receiver.ts", {}))
  const url = String((await script.logged(({ msg }) => msg === "listening"))["url"])
  const receiver = { url, pid: script.pid }
  console.log(
    `\none dispatcher, ${rate.events} events to ${webhooks} webhooks per round, against a loop of signed POSTs, ${concurrency} at once`,
  )
  const atOnce = await ratesOf(sides, receiver, rate)
  const slow = await ratesOf(sides, receiver, slowRate)
  printComparisons([
    { what: "deliveries/s", ...atOnce, target: "≥ 0.7" },
    { what: "to receivers that take 20 ms", ...slow, target: "" },
  ])
  printCpu(atOnce.usedUs)
  printMemory(atOnce.resident)
}

/** Milliseconds of a processor, or microseconds per delivery. */
type CpuUse = Readonly<Record<"dispatcher" | "postgres" | "receiver", number>>

async function cpuUse({ db, dispatcher }: Sides, receiverPid: number): Promise<CpuUse> {
  const { rows } = await sql<{ pid: number }>`select pid from pg_stat_activity`.execute(db)
  return {
    dispatcher: cpuMs([dispatcher.pid]),
    postgres: cpuMs(rows.map(({ pid }) => pid)),
    receiver: cpuMs([receiverPid]),
  }
}

function perDelivery(before: CpuUse, after: CpuUse, deliveries: number): CpuUse {
  const used = (who: keyof CpuUse): number => (1_000 * (after[who] - before[who])) / deliveries
  return { dispatcher: used("dispatcher"), postgres: used("postgres"), receiver: used("receiver") }
}

function printCpu(rounds: readonly CpuUse[]): void {
  const of = (who: keyof CpuUse): string => `${who} ${Math.round(median(rounds.map((used) => used[who])))}`
  console.log(`processor time per delivery, µs: ${of("dispatcher")}, ${of("postgres")}, ${of("receiver")}`)
}

async function ratesOf(
  sides: Sides,
  receiver: { url: string; pid: number },
  { rounds, events, warmUps, path }: Rate,
) {
  const { db, waker, dispatcher, bareDb, sealed } = sides
  const hooks: string[] = []
  for (let n = 0; n < webhooks; n++)
    hooks.push((await createWebhook(db, { url: `${receiver.url}${path}${n}`, secret: sealed })).id)
  const [event] = await listEvents(db, { after: 0, limit: 1 })
  const deliveries = events * webhooks
  const run = { url: `${receiver.url}${path}`, body: JSON.stringify(event), deliveries, concurrency }
  const resident: number[] = []
  const usedUs: CpuUse[] = []
  const ours = async (): Promise<number> => {
    await inTransaction(db, async (tx) => {
      for (let n = 0; n < events; n++) await appendSnapshotEvent(tx, "snapshot.completed", finishedSnapshot())
    })
    const before = await cpuUse(sides, receiver.pid)
    waker.wake("events")
    const perSecond = await rateAt(receiver.url, deliveries)
    const after = await cpuUse(sides, receiver.pid)
    usedUs.push(perDelivery(before, after, deliveries))
    resident.push(residentMebibytes(dispatcher.pid))
    return perSecond
  }
  const theirs = async (): Promise<number> => {
    await sql`select pg_notify('bare_run', ${JSON.stringify(run)})`.execute(bareDb)
    return rateAt(receiver.url, deliveries)
  }
  for (let n = 0; n < warmUps; n++) {
    await ours()
    await theirs()
  }
  resident.length = 0
  usedUs.length = 0
  const times = await byTurns(rounds, ours, theirs)
  for (const id of hooks) await deleteWebhook(db, id)
  return { ...times, resident, usedUs }
}

/** Of one round: from the first arrival to the last. */
async function rateAt(receiver: string, deliveries: number): Promise<number> {
  const deadline = wallClock() + waitMsMax
  while (wallClock() < deadline) {
    const response = await fetch(`${receiver}/${deliveries}`)
    const { count, firstAt, lastAt } = (await response.json()) as Record<
      "count" | "firstAt" | "lastAt",
      number
    >
    if (count > deliveries) throw new Error(`${count} deliveries came, not ${deliveries}`)
    if (count === deliveries) return (1_000 * count) / (lastAt - firstAt)
    await delay(pollMs)
  }
  throw new Error(`not ${deliveries} deliveries within ${waitMsMax / 1_000} s`)
}

const pollMs = 50

function printMemory(mebibytes: readonly number[]): void {
  const half = mebibytes.length / 2
  const [first, second] = [mebibytes.slice(0, half), mebibytes.slice(half)].map(median)
  console.log(
    `the dispatcher's resident memory after every ${rate.events * webhooks} deliveries, MiB: ${mebibytes.map(Math.round).join(" ")}`,
  )
  console.log(
    `medians of the first and the second half: ${Math.round(first ?? 0)} and ${Math.round(second ?? 0)} (flat: ≤ 1.1 times)`,
  )
}

function residentMebibytes(pid: number): number {
  const kibibytes = /VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
  return Number(kibibytes) / 1_024
}
