import { afterAll, beforeAll } from "vitest"
import { ground } from "../test-vm.ts"
import { openBench, startVm, type Bench, type SubjectVm } from "./subject-vm.ts"
import type { Subject } from "./subject.ts"
import { wiretap, type Wiretap } from "./wiretap.ts"

/** A running VM, and where it runs. Both gone when it is. */
export interface Scene extends AsyncDisposable {
  readonly bench: Bench
  readonly vm: SubjectVm
}

/** With somebody between the VM and its captors. */
export interface TappedScene extends Scene {
  readonly tap: Wiretap
}

export async function openScene(subject: Subject): Promise<Scene> {
  await using opened = new AsyncDisposableStack()
  const bench = await openBench(opened.use(await ground()), subject)
  const vm = await startVm(bench)
  const resources = opened.move()
  return { bench, vm, [Symbol.asyncDispose]: async () => await resources.disposeAsync() }
}

export async function openTapped(subject: Subject): Promise<TappedScene> {
  await using opened = new AsyncDisposableStack()
  const { bench, vm } = opened.use(await openScene(subject))
  const tap = opened.use(await wiretap(vm.dir, subject.wire))
  const resources = opened.move()
  return { bench, vm, tap, [Symbol.asyncDispose]: async () => await resources.disposeAsync() }
}

/** One for all tests of a suite, each of which leaves its VM running. */
export function shared<Opened extends Scene>(open: () => Promise<Opened>): () => Opened {
  let scene: Opened
  beforeAll(async () => void (scene = await open()))
  afterAll(async () => await scene[Symbol.asyncDispose]())
  return () => scene
}
