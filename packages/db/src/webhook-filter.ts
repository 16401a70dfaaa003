import { sql, type RawBuilder } from "kysely"

/** Whether the row of `events` is one for the row of `webhooks`, by the event's own data. A test is for its webhook alone. */
export const webhookMatches: RawBuilder<boolean> = sql`case
  when events.type = 'webhook.test' then webhooks.id = events.subject_id
  else (webhooks.event_types = '[]' or webhooks.event_types ? events.type
      or webhooks.event_types ? (events.subject_kind || '.*'))
    and (webhooks.instance_ids = '[]'
      or webhooks.instance_ids ? coalesce(events.data ->> 'source_instance_id', events.subject_id))
    and coalesce(events.data -> 'tags', '{}') @> webhooks.tags
  end`
