import { appendFileSync, existsSync, openSync, readFileSync, rmSync } from "node:fs"
import { mkdir, rename, rm, writeFile } from "node:fs/promises"
import type { IncomingMessage } from "node:http"
import { flushCompileCache } from "node:module"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { openState, sealState } from "./vz-state.ts"

/**
 * A shim without a framework behind it: Hypeman's protocol for Virtualization.framework (`-config <json>`,
 * HTTP on a unix socket) with its answers and its manners. Requests wait for each other; pausing and resuming
 * take a while, and the answer to a resume comes first; a save is encrypted, and its whole directory goes
 * when it fails; a state is loaded only by the machine that it is of. Stricter than the real one in that it
 * refuses members it does not know.
 *
 * Its guest prints `<tick> <sum>` as our heartbeat guest does. `fault.json` in its working directory says
 * what goes wrong, by the name of the command, and is read again for each.
 */
type Fault =
  | "refuse"
  | "silent"
  | "lost"
  | "die"
  | "slow"
  | "hold"
  | "full"
  | "empty"
  | "unfinished"
  | "ignore"

interface Config {
  vcpus: number
  memory_bytes: number
  disks: { path: string; readonly: boolean }[]
  networks: { mac: string }[]
  serial_log_path: string
  kernel_path: string
  initrd_path: string
  kernel_args: string
  control_socket: string
  vsock_socket: string
  log_path: string
  machine_identifier_data: string
  restore_machine_state_path?: string
}

// An import of it would load all of fetch() for one of its other exports.
const { createServer } = process.getBuiltinModule("node:http")
const known = new Set(
  `vcpus memory_bytes disks networks serial_log_path kernel_path initrd_path kernel_args control_socket
  vsock_socket log_path machine_identifier_data restore_machine_state_path`.split(/\s+/),
)
const tickMs = 10
const passingMs = 30
const slowMs = 1_000
const stateFile = "machine-state.vzm"
const [option, given = ""] = process.argv.slice(2)
const config = readConfig()
const vm = {
  state: config.restore_machine_state_path === undefined ? "Starting" : "Restoring",
  tick: 0,
  sum: 0x12345678,
}

function fail(why: string): never {
  process.stderr.write(`${why}\n`)
  process.exit(1)
}

function readConfig(): Config {
  if (option !== "-config" || given === "") fail("error: -config is required")
  const config = JSON.parse(given) as Config
  const foreign = Object.keys(config).filter((name) => !known.has(name))
  if (foreign.length > 0) fail(`error: invalid config JSON: unknown ${foreign.join(", ")}`)
  const uuid = Buffer.from(config.machine_identifier_data, "base64")
  if (uuid.length !== 70 || !uuid.toString("latin1").startsWith("bplist00"))
    fail("failed to create VM: configure platform: recreate machine identifier")
  for (const { path, readonly } of config.disks) {
    if (!existsSync(path)) fail(`failed to create VM: configure storage: disk image not found: ${path}`)
    if (path.endsWith(".qcow2")) fail(`failed to create VM: qcow2 not supported by vz: ${path}`)
    attach(path, readonly)
  }
  if (!existsSync(config.kernel_path)) fail(`failed to create VM: create boot loader: ${config.kernel_path}`)
  return config
}

/** Kept open for as long as the process lives. */
function attach(path: string, readonly: boolean): void {
  try {
    openSync(path, readonly ? "r" : "r+")
  } catch {
    fail('failed to create VM: configure storage: Error Domain=VZErrorDomain Code=2 "invalid disk image"')
  }
}

/** What the framework compares before it loads a state. */
function machine(): object {
  const { vcpus, memory_bytes, disks, networks, machine_identifier_data } = config
  const devices = { disks: disks.map(({ readonly }) => readonly), networks }
  return { vcpus, memory_bytes, devices, machine_identifier_data }
}

function load(path: string): void {
  try {
    const saved = openState(readFileSync(path))
    if (JSON.stringify(saved.machine) !== JSON.stringify(machine())) throw new Error("another machine")
    vm.tick = saved.tick
    vm.sum = saved.sum
  } catch {
    fail('failed to restore machine state: Error Domain=VZErrorDomain Code=12 "invalid argument"')
  }
}

function faultOf(name: string): Fault | undefined {
  try {
    return (JSON.parse(readFileSync("fault.json", "utf8")) as Record<string, Fault>)[name]
  } catch {
    return undefined
  }
}

interface Answer {
  status: number
  text?: string
}

const done: Answer = { status: 204 }
const badRequest = (text: string): Answer => ({ status: 400, text })
const failed = (text: string): Answer => ({ status: 500, text })

const commands: Record<string, (body: string, fault?: Fault) => Promise<Answer> | Answer> = {
  "GET vmm.ping": () => ({ status: 200, text: "OK" }),
  "GET vm.info": () => ({ status: 200, text: JSON.stringify({ state: vm.state }) }),
  "PUT vm.pause": async () => {
    if (vm.state !== "Running") return badRequest("cannot pause VM")
    vm.state = "Pausing"
    await delay(passingMs)
    vm.state = "Paused"
    return done
  },
  "PUT vm.resume": () => {
    if (vm.state !== "Paused") return badRequest("cannot resume VM")
    setTimeout(() => (vm.state = "Resuming"), passingMs)
    setTimeout(() => (vm.state = "Running"), 2 * passingMs)
    return done
  },
  "PUT vm.snapshot": save,
  "PUT vm.shutdown": powerButton,
  "PUT vm.power-button": powerButton,
  "PUT vmm.shutdown": () => {
    setImmediate(end)
    return done
  },
}

function powerButton(_body: string, fault?: Fault): Answer {
  if (vm.state !== "Running") return failed("power button failed: <nil>")
  if (fault !== "ignore") setTimeout(end, passingMs)
  return done
}

async function save(body: string, fault?: Fault): Promise<Answer> {
  const { destination_path: dir, ...more } = JSON.parse(body) as { destination_path?: string }
  if (Object.keys(more).length > 0) return badRequest("invalid snapshot request")
  if (dir === undefined || dir === "") return badRequest("destination_path is required")
  if (vm.state !== "Paused") return badRequest("vm must be paused before snapshot")
  await mkdir(dir, { recursive: true, mode: 0o755 })
  const state = sealState({ machine: machine(), tick: vm.tick, sum: vm.sum }, config.memory_bytes)
  vm.state = "Saving"
  await writeFile(join(dir, stateFile), fault === "empty" ? "" : state)
  if (fault === "slow") await delay(slowMs)
  while (faultOf("vm.snapshot") === "hold") await delay(passingMs)
  vm.state = "Paused"
  if (fault === "full") {
    await rm(dir, { recursive: true })
    return failed(
      "save machine state failed: Error Domain=NSPOSIXErrorDomain Code=28 No space left on device",
    )
  }
  if (fault === "unfinished") return done
  const manifest = { hypervisor: "vz", machine_state_file: stateFile, shim_config: config }
  await writeFile(join(dir, "config.json.tmp"), JSON.stringify(manifest))
  await rename(join(dir, "config.json.tmp"), join(dir, "config.json"))
  return done
}

async function answer(request: IncomingMessage, body: string): Promise<Answer | undefined> {
  const name = (request.url ?? "").replace("/api/v1/", "")
  const fault = faultOf(name)
  if (fault === "die") process.kill(process.pid, "SIGKILL")
  if (fault === "silent") return undefined
  if (fault === "refuse") return failed(`${name} failed: Error Domain=VZErrorDomain Code=1`)
  const command = commands[`${request.method} ${name}`]
  if (command === undefined) return { status: 404, text: "404 page not found" }
  const said = await command(body, fault)
  return fault === "lost" ? undefined : said
}

function end(): void {
  process.exit(0)
}

let turn: Promise<void> = Promise.resolve()
const server = createServer((request, response) => {
  turn = turn.then(async () => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const said = await answer(request, Buffer.concat(chunks).toString("utf8"))
    if (said !== undefined) response.writeHead(said.status).end(said.text)
  })
})

process.once("SIGTERM", end)
rmSync(config.control_socket, { force: true })
appendFileSync(config.serial_log_path, "")
// Tests kill most VMs, and only a clean exit would write it.
server.listen(config.control_socket, flushCompileCache)
setTimeout(() => {
  const { restore_machine_state_path: path } = config
  if (path !== undefined) load(path)
  vm.state = path === undefined ? "Running" : "Paused"
}, passingMs)
const hex = (value: number): string => value.toString(16).padStart(8, "0")
setInterval(() => {
  if (vm.state !== "Running" && vm.state !== "Pausing") return
  vm.tick += 1
  appendFileSync(config.serial_log_path, `${hex(vm.tick)} ${hex(vm.sum)}\n`)
}, tickMs)
