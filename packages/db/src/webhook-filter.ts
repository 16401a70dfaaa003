import { sql, type RawBuilder } from "kysely"

/** Whether the row of `events` is one for the row of `webhooks`, by the event's own data. A test is for its webhook alone. */
export const webhookMatches: RawBuilder<boolean> = sql`webhook_matches(webhooks, events)`
