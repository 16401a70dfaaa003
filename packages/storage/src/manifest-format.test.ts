import { expect, test } from "vitest"
import { parseManifest } from "./manifest-format.ts"

const manifest = {
  format: 1,
  snapshot_id: "s1",
  kind: "Standby",
  token: "t1",
  source_instance: { id: "i1", name: "web" },
  hypervisor: { name: "qemu", version: "7.2.22" },
  launch: { image: "heartbeat" },
  disks: [{ base: "disk.qcow2" }],
  captured_at: "2026-01-02T03:04:05.678Z",
  pause_ms: 12.5,
  files: [
    { name: "memory.zst", role: "memory", bytes: 4096, sha256: "ab" },
    { name: "base.qcow2", role: "base", bytes: 10 },
  ],
}

test("a manifest is read as it was written", () => {
  expect(parseManifest(JSON.stringify(manifest))).toEqual(manifest)
})

test("what a snapshot of kind Stopped or an image of Standby does not have may be absent", () => {
  const { snapshot_id: _, ...image } = manifest

  expect(parseManifest(JSON.stringify({ ...image, kind: "Stopped", files: [] }))).toMatchObject({ files: [] })
})

test.each([
  ["the format of a later version", { format: 2 }],
  ["another kind", { kind: "Running" }],
  ["no token", { token: undefined }],
  ["half a source", { source_instance: { id: "i1" } }],
  ["a hypervisor by its name alone", { hypervisor: "qemu" }],
  ["a launch that is a list", { launch: [] }],
  ["a reason that is none", { not_restorable: 1 }],
  ["disks that are no records", { disks: ["disk.qcow2"] }],
  ["no time", { captured_at: "yesterday" }],
  ["no number", { pause_ms: "12" }],
  ["a file of an unknown role", { files: [{ name: "x", role: "log", bytes: 1 }] }],
  ["half a byte", { files: [{ name: "x", role: "disk", bytes: 0.5 }] }],
  ["a checksum that is no text", { files: [{ name: "x", role: "disk", bytes: 1, sha256: 7 }] }],
])("%s is refused", (_, change) => {
  expect(() => parseManifest(JSON.stringify({ ...manifest, ...change }))).toThrow(SyntaxError)
})

test.each(["", "{", "null", "[]", "1"])("%j is no manifest", (json) => {
  expect(() => parseManifest(json)).toThrow(SyntaxError)
})
