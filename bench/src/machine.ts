import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os"
import { join } from "node:path"
import { builtinImage } from "@stillframe/hypervisors/images"
import { probeAccel, probeQemu, type QemuProbe } from "@stillframe/hypervisors/qemu/probe/probe"
import { findProgram } from "@stillframe/runtime/find-program"
import { installImages } from "@stillframe/stillframe/stack/install-images"

/** What the measured guests run on. */
export interface Machine extends QemuProbe {
  readonly accel: "tcg" | "kvm"
  readonly binary: string
  readonly qemuImg: string
}

const { signal } = new AbortController()

/** `QEMU_ACCELERATOR` decides; unset, a trial boot does. */
export async function thisMachine(): Promise<Machine> {
  const binary = findProgram(process.env["QEMU_BINARY"] ?? "qemu-system-x86_64", process.env["PATH"])
  const probe = await probeQemu(binary, signal)
  const wanted = process.env["QEMU_ACCELERATOR"]
  const accel = wanted === "tcg" || wanted === "kvm" ? wanted : await trialBoot(binary, probe)
  return { ...probe, accel, binary, qemuImg: process.env["QEMU_IMG"] ?? "qemu-img" }
}

async function trialBoot(binary: string, probe: QemuProbe): Promise<"tcg" | "kvm"> {
  const images = mkdtempSync(join(tmpdir(), "bench-images-"))
  try {
    await installImages(images)
    const { kernel = "", ...guest } = builtinImage("demo", images)
    return await probeAccel(binary, probe.machines.q35, { ...guest, kernel, marker: "COUNT" }, signal)
  } finally {
    rmSync(images, { recursive: true })
  }
}

export function machineLine(machine: Machine): string {
  return [
    `${availableParallelism()} cores ${cpus()[0]?.model ?? ""}`.trim(),
    `${Math.round(totalmem() / 2 ** 30)} GiB`,
    `Linux ${release()}`,
    `Node ${process.version}`,
    `QEMU ${machine.version} (${machine.accel})`,
    `zstd ${zstdVersion() ?? "absent"}`,
  ].join(", ")
}

/** Of the `zstd` on PATH; undefined where there is none. */
export function zstdVersion(): string | undefined {
  return /v(\d+\.\d+\.\d+)/.exec(spawnSync("zstd", ["--version"], { encoding: "utf8" }).stdout ?? "")?.[1]
}
