import { openSync, readFileSync, statSync } from "node:fs"
import { fault, hang, type Operation } from "./faults.ts"
import { unknownField } from "./fields.ts"
import { startGuest, type Guest } from "./guest.ts"
import { save } from "./save.ts"
import { decodeState, formatOf, type SavedState } from "./state-file.ts"

export interface Answer {
  status: 200 | 204 | 400
  body?: object
  /** Once the answer is sent, the process ends with this. */
  exit?: number
}

type Fields = Record<string, unknown>
type Load = {
  snapshot_path: string
  mem_backend?: { backend_path: string }
  mem_file_path?: string
  resume_vm?: boolean
}

const done: Answer = { status: 204 }
const before = "The requested operation is not supported before starting the microVM."
const after = "The requested operation is not supported after starting the microVM."

/** One microVM behind Firecracker's API. Requests must come one at a time. */
export function microvm(version: string): (method: string, path: string, body?: Fields) => Promise<Answer> {
  const minor = Number(version.split(".")[1])
  let state: "Not started" | "Running" | "Paused" = "Not started"
  let guest: Guest | undefined
  let machine: SavedState["machine"] = { vcpu_count: 1, mem_size_mib: 128 }
  let bootSource: Fields | undefined
  const drives = new Map<string, Fields>()

  const info = { app_name: "Firecracker", id: "anonymous-instance", vmm_version: version }
  const gets: Record<string, () => object> = {
    "/": () => ({ ...info, state }),
    "/version": () => ({ firecracker_version: version }),
    "/machine-config": () => machine,
    // What is absent is null, whatever the description says.
    "/vm/config": () => ({
      balloon: null,
      drives: [...drives.values()].map((drive) => ({
        partuuid: null,
        rate_limiter: null,
        socket: null,
        ...drive,
      })),
      "boot-source": { kernel_image_path: "", initrd_path: null, boot_args: null, ...bootSource },
      "machine-config": machine,
      "network-interfaces": [],
      vsock: null,
    }),
  }

  function configure(path: string, body: Fields): Answer {
    if (state !== "Not started") return refused(after)
    if (path === "/machine-config") machine = { ...machine, ...body }
    if (path === "/boot-source") {
      const missing = [body["kernel_image_path"], body["initrd_path"]].find((file) => isMissing(file))
      if (missing !== undefined)
        return refused(
          "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        )
      bootSource = body
    }
    if (path.startsWith("/drives/")) {
      if (isMissing(body["path_on_host"]))
        return refused(`Drive error: ${noBackingFile(body["path_on_host"])}`)
      openDrive(body)
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
    if (!isElf(String(bootSource["kernel_image_path"])))
      return refused(
        "Start microvm error: Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: Invalid Elf magic number",
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
      const saved = { format: formatOf(minor), machine, drives: [...drives.values()] }
      await save(body as { snapshot_path: string; mem_file_path: string }, saved, guest)
      return done
    } catch (error) {
      return refused(failed + (error as Error).message)
    }
  }

  function load(body: Load): Answer {
    if (state !== "Not started") return refused(after)
    if (bootSource !== undefined || drives.size > 0)
      return refused(
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.",
      )
    try {
      const saved = decodeState(body.snapshot_path, minor)
      for (const drive of saved.drives)
        if (isMissing(drive["path_on_host"]))
          throw new Error(`Failed to build microVM from snapshot: ${noBackingFile(drive["path_on_host"])}`)
      if (fault("load") === "enomem")
        throw new Error("Failed to load guest memory: Cannot allocate memory (os error 12)")
      guest = startGuest(openSync(body.mem_backend?.backend_path ?? body.mem_file_path ?? "", "r"))
      machine = saved.machine
      for (const drive of saved.drives) {
        openDrive(drive)
        drives.set(`/drives/${String(drive["drive_id"])}`, drive)
      }
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

  return async (method, path, body) => {
    const get = gets[path]
    if (method === "GET" && get !== undefined)
      return body === undefined ? { status: 200, body: get() } : refused("GET request cannot have a body.")
    if (!knownPath(method, path))
      return refused(`Invalid request method and/or path: ${method} ${path.slice(1)}.`)
    if (body === undefined) return refused(`Empty ${method} request.`)
    const unknown = unknownField(path, body, minor)
    if (unknown !== undefined)
      return refused(
        `An error occurred when deserializing the json body of a request: ${unknown} at line 1 column 2.`,
      )
    return await change(path, body)
  }
}

async function faulty(operation: Operation, act: () => Answer | Promise<Answer>): Promise<Answer> {
  const wrong = fault(operation)
  if (wrong === "refuse") return refused(`Internal Vmm error: ${operation} did not work.`)
  if (wrong === "ignore") return done
  if (wrong === "die" && operation !== "save") process.kill(process.pid, "SIGKILL")
  const answer = await act()
  await hang(operation)
  return answer
}

const changes =
  /^(PUT \/(actions|boot-source|machine-config|drives\/\w+|snapshot\/(create|load))|PATCH \/vm)$/
const knownPath = (method: string, path: string): boolean => changes.test(`${method} ${path}`)

const refused = (fault_message: string): Answer => ({ status: 400, body: { fault_message } })

const noBackingFile = (path: unknown): string =>
  `Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) ${String(path)}`

const isMissing = (path: unknown): boolean =>
  typeof path === "string" && statSync(path, { throwIfNoEntry: false }) === undefined

function isElf(path: string): boolean {
  return readFileSync(path).subarray(0, 4).equals(Buffer.from("\u007fELF"))
}

/** Kept open for as long as the process lives. */
function openDrive({ path_on_host: path, is_read_only: readonly }: Fields): void {
  openSync(String(path), readonly === true ? "r" : "r+")
}
