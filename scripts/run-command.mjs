// Runs a command in the place of this process: hands its signals on and ends as it ends.
import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { constants } from "node:os"
import process from "node:process"

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"]
// npm hands on the Ctrl-C that the terminal has sent to this process as well.
const ECHO_MS = 500
const PARENT_POLL_MS = 500

/**
 * Resolves to the command's exit status, or 128 and the number of the signal that ended it. The command has a
 * session of its own, so a Ctrl-C reaches it once, from here. `toGroup`: signals also reach the command's own
 * children.
 */
export function runCommand([command, ...args], { env = process.env, toGroup = false } = {}) {
  const words = [command, ...args]
  // The kernel tells the command to end also when this process is killed outright.
  if (existsSync("/usr/bin/setpriv")) words.unshift("/usr/bin/setpriv", "--pdeathsig", "TERM", "--")
  const child = spawn(words[0], words.slice(1), { env, stdio: "inherit", detached: true })
  const send = (signal) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    if (toGroup) process.kill(-child.pid, signal)
    else child.kill(signal)
  }
  const stop = handOnSignals(send)
  return new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on("exit", (code, signal) => resolve(signal ? 128 + constants.signals[signal] : (code ?? 1)))
  }).finally(stop)
}

function handOnSignals(send) {
  const lastMs = new Map()
  const handOn = (signal) => {
    const nowMs = performance.now()
    if (nowMs - (lastMs.get(signal) ?? -Infinity) < ECHO_MS) return
    lastMs.set(signal, nowMs)
    send(signal)
  }
  for (const signal of SIGNALS) process.on(signal, handOn)
  const watch = watchParent(() => handOn("SIGTERM"))
  return () => {
    clearInterval(watch)
    for (const signal of SIGNALS) process.off(signal, handOn)
  }
}

/**
 * npm that is killed outright, or by SIGHUP, hands nothing on. Started by hand, a process may outlive its
 * shell.
 */
function watchParent(onGone) {
  const parent = process.ppid
  if (process.env.npm_lifecycle_event === undefined) return undefined
  // npm may have ended before this process could look. A script of npm is in npm's process group and does not
  // lead it.
  const group = groupOf("self")
  const orphaned = group !== String(process.pid) && group !== groupOf(parent)
  const timer = setInterval(() => {
    if (process.ppid === parent && !orphaned) return
    clearInterval(timer)
    onGone()
  }, PARENT_POLL_MS)
  return timer.unref()
}

/** Undefined where the system has no /proc. */
function groupOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ")[2]
  } catch {
    return undefined
  }
}
