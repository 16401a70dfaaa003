import { readFileSync, statSync } from "node:fs"
import { fault, hang, type Operation } from "./faults.ts"
import { startGuest, type Guest } from "./guest.ts"
import { openDrive, readSaved, type Load } from "./load.ts"
import { parseChange, type Fields } from "./requests.ts"
import { save } from "./save.ts"
import type { SavedState } from "./state-file.ts"

export interface Answer {
  status: 200 | 204 | 400
  /** A string is sent as it is. */
  body?: object | string
  /** Once the answer is sent, the process ends with this. */
  exit?: number
}

const done: Answer = { status: 204 }
const before = "The requested operation is not supported before starting the microVM."
const after = "The requested operation is not supported after starting the microVM."
const vcpusMax = 32
const elf = Buffer.from("\u007fELF")
const elfHeaderBytes = 64

/** One microVM behind Firecracker's API. Requests must come one at a time. */
export function microvm(version: string): (method: string, path: string, body: string) => Promise<Answer> {
  const minor = Number(version.split(".")[1])
  let state: "Not started" | "Running" | "Paused" = "Not started"
  let guest: Guest | undefined
  let machine: SavedState["machine"] = { vcpu_count: 1, mem_size_mib: 128 }
  let bootSource: Fields | undefined
  let configured = false
  const drives = new Map<string, Fields>()

  const info = { app_name: "Firecracker", id: "anonymous-instance", vmm_version: version }
  const gets: Record<string, () => object> = {
    "/": () => ({ ...info, state }),
    "/version": () => ({ firecracker_version: version }),
    "/machine-config": () => describeMachine(machine),
    // What is absent is null, whatever the description says.
    "/vm/config": () => ({
      balloon: null,
      drives: [...drives.values()].map((drive) => ({ ...anyDrive, ...drive })),
      "boot-source": { kernel_image_path: "", initrd_path: null, boot_args: null, ...bootSource },
      "machine-config": describeMachine(machine),
      "network-interfaces": [],
      vsock: null,
    }),
  }

  function configure(path: string, body: Fields): Answer {
    if (state !== "Not started") return refused(after)
    configured = true
    if (path === "/machine-config") {
      const wrong = wrongMachine(body)
      if (wrong !== undefined) return refused(`Machine config error: ${wrong}`)
      machine = { ...machine, ...body }
    }
    if (path === "/boot-source") {
      const missing = missingBootFile(body)
      if (missing !== undefined) return refused(`Boot source error: ${missing}`)
      bootSource = body
    }
    if (path.startsWith("/drives/")) {
      try {
        openDrive(body, "Drive config error: Unable to create the virtio block device: ")
      } catch (error) {
        return refused((error as Error).message)
      }
      drives.set(path, body)
    }
    return done
  }

  function act(type: unknown): Answer {
    if (type === "InstanceStart") return start()
    if (state === "Not started") return refused(before)
    return type === "SendCtrlAltDel" && fault("guest") === "obeys" ? { ...done, exit: 0 } : done
  }

  function start(): Answer {
    if (state !== "Not started") return refused(after)
    if (bootSource === undefined)
      return refused("Start microvm error: Cannot start microvm without kernel configuration.")
    const wrong = wrongKernel(String(bootSource["kernel_image_path"]))
    if (wrong !== undefined)
      return refused(
        `Start microvm error: System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: ${wrong}`,
      )
    guest = startGuest()
    guest.run()
    state = "Running"
    return done
  }

  function setState(wanted: unknown): Answer {
    if (guest === undefined) return refused(before)
    if (wanted === "Paused") guest.pause()
    else guest.run()
    state = wanted === "Paused" ? "Paused" : "Running"
    return done
  }

  async function create(body: Fields): Promise<Answer> {
    if (guest === undefined) return refused(before)
    const failed = "Create snapshot error: "
    if (state !== "Paused")
      return refused(
        `${failed}Cannot save the microVM state: Operation not allowed: save/restore unavailable while running`,
      )
    try {
      const saved = {
        minor,
        machine,
        bootSource: bootSource ?? {},
        drives: [...drives.values()],
      }
      await save(body as { snapshot_path: string; mem_file_path: string }, saved, guest)
      return done
    } catch (error) {
      return refused(failed + (error as Error).message)
    }
  }

  function load(body: Load): Answer {
    if (state !== "Not started") return refused(after)
    if (configured)
      return refused(
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.",
      )
    try {
      const { saved, memory } = readSaved(body, minor)
      guest = startGuest(memory)
      machine = saved.machine
      bootSource = saved.bootSource
      for (const drive of saved.drives) drives.set(`/drives/${String(drive["drive_id"])}`, drive)
    } catch (error) {
      return {
        ...refused(`Load snapshot error: Failed to restore from snapshot: ${(error as Error).message}`),
        exit: 1,
      }
    }
    state = "Paused"
    return body.resume_vm === true ? setState("Resumed") : done
  }

  async function change(path: string, body: Fields): Promise<Answer> {
    if (path === "/actions") return act(body["action_type"])
    if (path === "/vm")
      return await faulty(body["state"] === "Paused" ? "pause" : "resume", () => setState(body["state"]))
    if (path === "/snapshot/create") return await faulty("save", async () => await create(body))
    if (path === "/snapshot/load") return await faulty("load", () => load(body as unknown as Load))
    return configure(path, body)
  }

  return async (method, path, text) => {
    const get = gets[path]
    if (method === "GET" && text !== "") return refused("GET request cannot have a body.")
    if (method === "GET" && get !== undefined) return { status: 200, body: get() }
    let body: Fields
    try {
      body = parseChange(method, path, text, minor)
    } catch (error) {
      return refused((error as Error).message)
    }
    return await change(path, body)
  }
}

async function faulty(operation: Operation, act: () => Answer | Promise<Answer>): Promise<Answer> {
  const wrong = fault(operation)
  if (wrong === "refuse") return refused(`Internal VMM error: ${operation} did not work.`)
  if (wrong === "ignore") return done
  if (wrong === "die" && operation !== "save") process.kill(process.pid, "SIGKILL")
  const answer = await act()
  await hang(operation)
  return answer
}

const refused = (fault_message: string): Answer => ({ status: 400, body: { fault_message } })

const anyDrive = {
  partuuid: null,
  cache_type: "Unsafe",
  is_read_only: false,
  rate_limiter: null,
  io_engine: "Sync",
  socket: null,
}

const describeMachine = (machine: SavedState["machine"]): object => ({
  smt: false,
  track_dirty_pages: false,
  huge_pages: "None",
  ...machine,
})

function wrongMachine({ vcpu_count: vcpus, mem_size_mib: memory }: Fields): string | undefined {
  if (typeof vcpus === "number" && (vcpus < 1 || vcpus > vcpusMax))
    return "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled."
  if (memory === 0) return "The memory size (MiB) is either 0, or not a multiple of the configured page size."
  return undefined
}

function missingBootFile({ kernel_image_path: kernel, initrd_path: initrd }: Fields): string | undefined {
  const noFile = "No such file or directory (os error 2)"
  if (isMissing(kernel)) return `The kernel file cannot be opened: ${noFile}`
  if (isMissing(initrd))
    return `The initrd file cannot be opened due to invalid path or invalid permissions. ${noFile}`
  return undefined
}

const isMissing = (path: unknown): boolean =>
  typeof path === "string" && statSync(path, { throwIfNoEntry: false }) === undefined

function wrongKernel(path: string): string | undefined {
  const header = readFileSync(path).subarray(0, elfHeaderBytes)
  if (header.length < elfHeaderBytes) return "Unable to read elf header"
  return header.subarray(0, elf.length).equals(elf) ? undefined : "Invalid Elf magic number"
}
