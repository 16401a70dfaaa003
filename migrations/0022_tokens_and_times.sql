-- Readers of events may not be readers of webhooks, whose paths and queries often hold a secret: only the origin stays.
update events set data = jsonb_set(data, '{url}', to_jsonb(substring(data ->> 'url' from '^[a-z]+://[^/?#]+')))
  where subject_kind = 'webhook' and data ->> 'url' ~ '^[a-z]+://[^/?#]+';
