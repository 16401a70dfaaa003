import { retryAfterMsMax } from "@stillframe/domain/delivery"
import { leaseMs, retryDelayMsMax } from "@stillframe/domain/operation"
import { secretGraceMsMax } from "@stillframe/domain/webhook"
import { sql } from "kysely"
import type { Database } from "../schema.ts"
import { readerLeaseMs } from "../snapshots/readers.ts"
import { claimMs, perWebhookMax } from "./deliveries.ts"

/**
 * Pulls back every stored lease, delay, life sign and schedule that lies further ahead than it can: the
 * database's clock was ahead when it was written, and has been put right. A minute more is allowed to each.
 * Returns how many rows it changed.
 */
export async function pullBackTimes(db: Database): Promise<number> {
  const { rows } = await sql<{ changed: number }>`
    select pull_back_times(${leaseMs}, ${retryDelayMsMax}, ${readerLeaseMs}, ${retryAfterMsMax}, ${claimMs},
      ${secretGraceMsMax}, ${perWebhookMax}) as changed`.execute(db)
  return rows[0]?.changed ?? 0
}
