import { expect, test } from "vitest"
import { snapshotResource, snapshotStatusesBefore, type SnapshotRecord } from "./snapshot.ts"

const record: SnapshotRecord = {
  id: "q7z1w7l2af4l8y7q1h7g2m3s",
  kind: "Standby",
  status: "ready",
  name: null,
  tags: {},
  source_instance_id: "qilviffnqzck2jrim1x6s2b1",
  source_instance_name: "source",
  source_hypervisor: "qemu",
  capture: "paused",
  compression: null,
  compression_state: "none",
  compression_error: null,
  compression_reason: null,
  restorable_reason: null,
  size_bytes: 100,
  uncompressed_size_bytes: 90,
  compressed_size_bytes: 9,
  stored_bytes: null,
  shared_bytes: null,
  progress: null,
  error_code: null,
  error_message: null,
  pause_ms: null,
  created_at: new Date("2026-03-06T13:56:11Z"),
  captured_at: null,
  verified_at: null,
  corrupted_at: null,
}

test.each([
  ["queued", ["capturing"]],
  ["capturing", ["queued", "capturing"]],
  ["ready", ["capturing"]],
  ["failed", ["queued", "capturing"]],
  ["deleting", ["queued", "capturing", "ready", "failed"]],
] as const)("a snapshot becomes %s only from %j", (to, from) => {
  expect(snapshotStatusesBefore(to)).toEqual(from)
})

test("optional members are left out, never null", () => {
  expect(Object.keys(snapshotResource(record)).sort()).toEqual([
    "capture",
    "compression_state",
    "created_at",
    "id",
    "kind",
    "size_bytes",
    "source_hypervisor",
    "source_instance_id",
    "source_instance_name",
    "status",
  ])
})

test.each(["none", "compressing", "error"] as const)(
  "in compression state %s no byte counts are shown",
  (state) => {
    const shown = snapshotResource({
      ...record,
      compression_state: state,
      compression_error: "no space left",
    })

    expect(shown).not.toHaveProperty("compressed_size_bytes")
    expect(shown).not.toHaveProperty("uncompressed_size_bytes")
    expect(shown.compression_error).toBe(state === "error" ? "no space left" : undefined)
  },
)

test("a compressed snapshot that was to be compressed otherwise shows why it is not", () => {
  const failed = { ...record, compression_state: "compressed", compression_error: "no space left" } as const
  expect(snapshotResource(failed).compression_error).toBe("no space left")
})

test("a compressed snapshot shows both byte counts", () => {
  expect(snapshotResource({ ...record, compression_state: "compressed" })).toMatchObject({
    compressed_size_bytes: 9,
    uncompressed_size_bytes: 90,
  })
})
