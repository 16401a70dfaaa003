import type { OwnedDatabase } from "@stillframe/db/client"
import { sql } from "kysely"

/** Pairs of tags of the seeded snapshots, from one that a third has to one that hardly any has. */
export const tagPairs = {
  "35,000 of them": { env: "prod", tier: "web" },
  "3,500 of them": { env: "prod", team: "team-3" },
  "230 of them": { env: "prod", owner: "user-13" },
  "35 of them": { env: "prod", build: "b-31" },
} as const

/**
 * 100,000 captured and compressed snapshots of 1,000 instances, one a minute, the same in every run, a
 * twentieth of them failed; each with five tags, of which `env` has 3 values and `build` 2,000.
 */
export async function seedSnapshots(db: OwnedDatabase): Promise<void> {
  await db.connection().execute(async (connection) => {
    await sql`select setseed(0.5)`.execute(connection)
    await sql`
      insert into snapshots (id, kind, status, name, tags, source_instance_id, source_instance_name,
        source_hypervisor, host, pool, payload, memory_file, memory_sha256, compression,
        compression_state, size_bytes, uncompressed_size_bytes, compressed_size_bytes, stored_bytes, pause_ms,
        created_at, captured_at, verified_at)
      select 's' || substr(md5('s' || n), 1, 23), 'Standby', case when chance[1] < 0.05 then 'failed' else 'ready' end,
        'nightly-' || n,
        jsonb_build_object(
          'env', case when chance[2] < 0.7 then 'prod' when chance[2] < 0.9 then 'staging' else 'dev' end,
          'tier', case when chance[3] < 0.5 then 'web' when chance[3] < 0.8 then 'db' else 'batch' end,
          'team', 'team-' || floor(chance[4] * 20), 'owner', 'user-' || floor(chance[5] * 300),
          'build', 'b-' || floor(chance[6] * 2000)),
        'i' || substr(md5('i' || n % 1000), 1, 23), 'vm-' || n % 1000, 'qemu', 'bench', 'bench',
        's' || substr(md5('p' || n), 1, 23), 'memory.zst', md5('m' || n) || md5('h' || n),
        '{"enabled": true, "algorithm": "zstd", "level": 1}', 'compressed', n * 100, 536870912, n * 90, n * 110,
        12.5, made, made, made
      from (
        select n, clock() - (100000 - n) * interval '1 minute' as made,
          array[random(), random(), random(), random(), random(), random()] as chance
        from generate_series(1, 100000) as n
      ) as numbered`.execute(connection)
    await sql`vacuum analyze snapshots`.execute(connection)
  })
}
