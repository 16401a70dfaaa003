import { isAbsolute, join } from "node:path"
import type { Hypervisor } from "@stillframe/domain/instance"
import { logBytesMax } from "@stillframe/hypervisors/process/bounded-log"
import { assertReadable, parseEnv, SettingsError, type Env } from "@stillframe/runtime/env"
import { findProgram, isProgram } from "@stillframe/runtime/find-program"
import {
  databaseSettings,
  hostSettings,
  logSettings,
  storageSettings,
  wholeNumber,
} from "@stillframe/runtime/settings"
import { spaceFloorBytes } from "@stillframe/storage/space"
import { z } from "zod"
import { assertRights } from "./host/root-rights.ts"
import { stagingSetting } from "./host/staging-setting.ts"
import { vmUidSetting, type UidRange } from "./host/vm-uid-setting.ts"

export interface CaptureWorkerConfig {
  readonly databaseUrl: string
  readonly databaseDirectUrl: string
  /** Most connections of the pool. */
  readonly databaseConnections?: number | undefined
  readonly redisUrl: string | undefined
  readonly dataDir: string
  readonly storageDir: string
  readonly host: string
  readonly pool: string
  readonly hostPaths: readonly string[]
  /** The directory of the built-in guests. */
  readonly imagesDir: string
  /** Absolute, as the next one. */
  readonly qemuBinary: string
  readonly qemuImg: string
  /** The other hypervisors that this host may have. */
  readonly vmms: ReadonlyMap<Hypervisor, VmmBinary>
  /** Programs that an attached VM may run. They are real programs, while `qemuBinary` may be a script. */
  readonly attachBinaries: readonly string[]
  /** `auto`: KVM where a guest really boots on it, else TCG. */
  readonly accelerator: "auto" | "kvm" | "tcg"
  /** The device of hypervisors that need KVM; tests set another. */
  readonly kvmDevice: string
  /** A directory on a tmpfs for saves that a disk would keep waiting. */
  readonly staging: string | undefined
  /** The users that VMs run as where this process is root. */
  readonly vmUids: UidRange
  readonly pauseLimitMs: number
  /** The time that a guest gets to shut down before its VM is ended. */
  readonly stopGraceMs: number
  /** How long nothing must have been asked of a VM before its disk layers are merged. */
  readonly mergeQuietMs: number
  /** Stays free on the pool whatever is asked. */
  readonly spaceFloorBytes: number
  /**
   * The disks of this host's VMs may grow by at most so many times the free room; undefined: by more, with a
   * warning beyond once.
   */
  readonly diskOvercommit: number | undefined
  /** A VM that a full disk has stopped goes on once its file system has this much room. */
  readonly resumeRoomBytes: number
  /** How often an attached VM is asked whether it stands still. */
  readonly attachedLookMs: number
  /** A VM's log that has grown beyond this begins anew. */
  readonly logBytesMax: number
  /** Operations at a time, each of another instance. */
  readonly concurrency: number
}

export interface VmmBinary {
  /** Absolute. */
  readonly path: string
  /** The setting that names it; absent for one that was just found. */
  readonly setting?: string
}

const absolutePaths = z
  .string()
  .refine(
    (paths) => paths.split(":").every((path) => path.startsWith("/")),
    "must be absolute paths, joined by :",
  )

const overcommitRule = "must be a number from 1 to 1000, such as 1.5"

export const settings = {
  ...databaseSettings,
  ...storageSettings,
  ...hostSettings,
  ...logSettings,
  HOST_PATHS: absolutePaths.optional(),
  ATTACH_BINARIES: absolutePaths.optional(),
  QEMU_BINARY: z.string().default("qemu-system-x86_64"),
  QEMU_IMG: z.string().default("qemu-img"),
  QEMU_ACCELERATOR: z.enum(["auto", "kvm", "tcg"], { error: "must be auto, kvm or tcg" }).default("auto"),
  CLOUD_HYPERVISOR_BINARY: z.string().optional(),
  FIRECRACKER_BINARY: z.string().optional(),
  VZ_SHIM_BINARY: z.string().optional(),
  CAPTURE_STAGING: stagingSetting,
  VM_UID_RANGE: vmUidSetting,
  DISK_OVERCOMMIT: z.coerce
    .number({ error: overcommitRule })
    .min(1, overcommitRule)
    .max(1_000, overcommitRule)
    .optional(),
  PAUSE_LIMIT: wholeNumber({ min: 1, max: 3_600 }).default(120),
  STOP_GRACE: wholeNumber({ min: 0, max: 50 }).default(10),
  // More than one, so that a VM that hangs keeps no other waiting.
  CAPTURE_CONCURRENCY: wholeNumber({ min: 1, max: 64 }).default(4),
}

/** The settings that name a hypervisor's program, and what that is called on `PATH`. */
const vmmPrograms = [
  { name: "cloud-hypervisor", setting: "CLOUD_HYPERVISOR_BINARY", program: "cloud-hypervisor" },
  { name: "firecracker", setting: "FIRECRACKER_BINARY", program: "firecracker" },
  { name: "vz", setting: "VZ_SHIM_BINARY", program: "vz-shim" },
] as const

/** Throws one `SettingsError` that lists every mistake. */
export function configFromEnv(env: Env): CaptureWorkerConfig {
  assertReadable(
    () => parseEnv(settings, env),
    () => assertPrograms(env),
    assertRights,
  )
  const set = parseEnv(settings, env)
  const qemuBinary = findProgram(set.QEMU_BINARY, env["PATH"])
  return {
    databaseUrl: set.DATABASE_URL,
    databaseDirectUrl: set.DATABASE_DIRECT_URL ?? set.DATABASE_URL,
    databaseConnections: set.DATABASE_CONNECTIONS ?? 5,
    redisUrl: set.REDIS_URL,
    dataDir: set.DATA_DIR,
    storageDir: set.STORAGE_DIR ?? join(set.DATA_DIR, "storage"),
    host: set.HOST_NAME,
    pool: set.STORAGE_POOL,
    hostPaths: set.HOST_PATHS?.split(":") ?? [join(set.DATA_DIR, "images")],
    imagesDir: join(set.DATA_DIR, "images"),
    qemuBinary,
    qemuImg: findProgram(set.QEMU_IMG, env["PATH"]),
    vmms: vmmBinaries(set, env["PATH"]),
    attachBinaries: [qemuBinary, ...(set.ATTACH_BINARIES?.split(":") ?? [])],
    accelerator: set.QEMU_ACCELERATOR,
    kvmDevice: "/dev/kvm",
    staging: set.CAPTURE_STAGING,
    vmUids: set.VM_UID_RANGE,
    spaceFloorBytes,
    diskOvercommit: set.DISK_OVERCOMMIT,
    attachedLookMs: 30_000,
    logBytesMax,
    resumeRoomBytes: 128 * 1024 ** 2,
    mergeQuietMs: 5_000,
    pauseLimitMs: set.PAUSE_LIMIT * 1_000,
    stopGraceMs: set.STOP_GRACE * 1_000,
    concurrency: set.CAPTURE_CONCURRENCY,
  }
}

function vmmBinaries(
  set: Readonly<Partial<Record<(typeof vmmPrograms)[number]["setting"], string | undefined>>>,
  path: string | undefined,
): Map<Hypervisor, VmmBinary> {
  const found = new Map<Hypervisor, VmmBinary>()
  for (const { name, setting, program } of vmmPrograms) {
    const named = set[setting]
    const binary = findProgram(named ?? program, path)
    if (named !== undefined) found.set(name, { path: binary, setting })
    else if (isAbsolute(binary)) found.set(name, { path: binary })
  }
  return found
}

const programSettings = ["QEMU_BINARY", "QEMU_IMG", ...vmmPrograms.map(({ setting }) => setting)]

/**
 * Refuses a program that a setting names and that cannot be executed; one that is just not installed is no
 * setting's fault.
 */
function assertPrograms(env: Env): void {
  const mistakes = programSettings
    .filter((setting) => env[setting] !== undefined && !isProgram(env[setting], env["PATH"]))
    .map((name) => ({
      name,
      message: `names no program that this process can execute; set it to an absolute path, or to a name that is found on PATH`,
    }))
  if (mistakes.length > 0) throw new SettingsError(mistakes)
}
