import { basename } from "node:path"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { describe, expect, test } from "vitest"
import { openTapped, shared, type TappedScene } from "./subjects/scene.ts"
import {
  captureVm,
  expectNothingLeft,
  expectRuns,
  expectWhole,
  openBench,
  saveVm,
} from "./subjects/subject-vm.ts"
import type { Subject } from "./subjects/subject.ts"

/** Shorter than a test's patience, longer than any answer takes on a busy machine. */
const answerMs = 1_000
const givenUp = { code: expect.stringMatching(/^(timeout|pause_limit_exceeded)$/) }

/**
 * What a captor of any hypervisor must survive: a VM that ran runs, there is no half snapshot, and the reason
 * is told.
 */
export function adapterFaults(subject: Subject): void {
  describe(`on ${subject.title}`, () => {
    describe("a VM outlives", () => {
      const scene = shared(async () => await openTapped(subject))

      lostConnections(scene)
      missingAnswers(subject, scene)
      refusals(scene)
      fullDisks(subject, scene)
      others(subject, scene)
    })
    deadProcesses(subject)
  })
}

type GetScene = () => TappedScene

function lostConnections(scene: GetScene): void {
  test("a socket that is gone before the pause", async () => {
    const { bench, vm, tap } = scene()
    await tap.away()

    await expect(captureVm(bench, vm, "gone-before")).rejects.toMatchObject({ code: "hypervisor_gone" })

    await expectNothingLeft(bench, "gone-before")
    await expectRuns(vm)
    await tap.back()
  })

  test("a socket that goes in the pause: the VM runs as soon as it can be reached", async () => {
    const { bench, vm, tap } = scene()
    tap.at("save", async () => await tap.away(), 1)

    await expect(captureVm(bench, vm, "gone-in")).rejects.toMatchObject({ code: "hypervisor_gone" })

    await expectNothingLeft(bench, "gone-in")
    await tap.back()
    await bench.hypervisor.settle(vm.dir, { wasRunning: true })
    await expectRuns(vm)
  })

  const ends = ["cut", "passUnanswered"] as const

  test.each(ends)("a connection that ends at the pause or the save (%s)", async (end) => {
    const { bench, vm, tap } = scene()
    for (const step of ["pause", "save"] as const) {
      tap.at(step, (request) => request[end](), 1)

      const attempt = captureVm(bench, vm, `${end}-${step}`)

      await expect(attempt).rejects.toMatchObject({ code: "hypervisor_gone" })
      await expectNothingLeft(bench, `${end}-${step}`)
      await expectRuns(vm)
    }
  })

  test.each(ends)("a connection that ends at the resume (%s), and the snapshot is whole", async (end) => {
    const { bench, vm, tap } = scene()
    tap.at("resume", (request) => request[end](), 1)

    const save = await saveVm(bench, vm, `${end}-resume`)

    expect(tap.left("resume")).toBe(0)
    await expectRuns(vm)
    await expectWhole(bench, save)
  })
}

function missingAnswers(subject: Subject, scene: GetScene): void {
  const hasty = async (): Promise<TappedScene> => {
    const { bench, ...rest } = scene()
    return { ...rest, bench: await openBench(bench.place, subject, { answerMs }) }
  }

  test.each(["pause", "save"] as const)("a %s that is never answered", async (step) => {
    const { bench, vm, tap } = await hasty()
    tap.at(step, () => {}, 1)

    const attempt = captureVm(bench, vm, `silent-${step}`, { pauseExpectedMs: answerMs })

    await expect(attempt).rejects.toMatchObject(givenUp)
    await expectNothingLeft(bench, `silent-${step}`)
    await expectRuns(vm)
  })

  test("a resume that is never answered, and the snapshot is whole", async () => {
    const { bench, vm, tap } = await hasty()
    tap.at("resume", () => {}, 1)

    const save = await saveVm(bench, vm, "silent-resume")

    expect(tap.left("resume")).toBe(0)
    await expectRuns(vm)
    await expectWhole(bench, save)
  })

  test("a process that stands still in the pause and goes on late", async () => {
    const { bench, vm, tap } = await hasty()
    const goOnLate = async (): Promise<void> => {
      // The save was given up by then: nothing else is asked while it is waited for.
      await tap.next()
      process.kill(vm.process.pid, "SIGCONT")
    }
    tap.at(
      "save",
      async (request) => {
        process.kill(vm.process.pid, "SIGSTOP")
        request.pass()
        await goOnLate()
      },
      1,
    )

    const attempt = captureVm(bench, vm, "late", { pauseLimitMs: answerMs })

    await expect(attempt).rejects.toMatchObject(givenUp)
    await expectNothingLeft(bench, "late")
    await expectRuns(vm)
  })
}

function refusals(scene: GetScene): void {
  test.each(["pause", "save"] as const)(
    "a %s that is refused, and the log is told in which words",
    async (step) => {
      const { bench, vm, tap } = scene()
      tap.at(step, (request) => request.refuse(), 1)

      await expect(captureVm(bench, vm, `refused-${step}`)).rejects.toMatchObject({
        code: "hypervisor_failed",
        message: expect.not.stringContaining("not now"),
        said: expect.stringContaining("not now"),
      })

      await expectNothingLeft(bench, `refused-${step}`)
      await expectRuns(vm)
    },
  )

  test("a resume that is refused three times, and the snapshot is whole", async () => {
    const { bench, vm, tap } = scene()
    tap.at("resume", (request) => request.refuse(), 3)

    const save = await saveVm(bench, vm, "refused-resume")

    expect(tap.left("resume")).toBe(0)
    await expectRuns(vm)
    await expectWhole(bench, save)
  })
}

function fullDisks({ fullDisks }: Subject, scene: GetScene): void {
  test.each(fullDisks)("a disk without room for $file", async ({ file, code, words, takeRoom }) => {
    const { bench, vm } = scene()
    await using _full = await takeRoom({ dir: vm.dir, payload: await bench.place.folder(file) })

    const attempt = captureVm(bench, vm, file)

    await expect(attempt).rejects.toMatchObject({ code, message: expect.stringMatching(words) })
    await expectNothingLeft(bench, file)
    await expectRuns(vm)
  })
}

function others(subject: Subject, scene: GetScene): void {
  test("a pause by somebody else right before its own, and the snapshot is whole", async () => {
    const { bench, vm, tap } = scene()
    tap.at(
      "pause",
      async (request) => {
        await subject.pause(vm.dir)
        request.pass()
      },
      1,
    )

    const save = await saveVm(bench, vm, "paused-twice")

    expect(save.captured.wasRunning).toBe(true)
    await expectRuns(vm)
    await expectWhole(bench, save)
  })

  test("two captors at once, each of which has a whole snapshot or none", async () => {
    const { bench, vm } = scene()

    const names = ["one", "two"]
    const attempts = await Promise.allSettled(names.map(async (name) => await saveVm(bench, vm, name)))

    await expectRuns(vm)
    const saves = attempts.flatMap((attempt) => (attempt.status === "fulfilled" ? [attempt.value] : []))
    expect(saves.length).toBeGreaterThan(0)
    for (const save of saves) await expectWhole(bench, save)
    const whole = new Set(saves.map(({ dir }) => basename(dir)))
    for (const name of names.filter((other) => !whole.has(other))) await expectNothingLeft(bench, name)
  })
}

function deadProcesses(subject: Subject): void {
  test.each([
    { when: "before the pause", step: "pause", begun: false },
    { when: "before the save", step: "save", begun: false },
    { when: "in the save", step: "save", begun: true },
    { when: "before the resume", step: "resume", begun: false },
  ] as const)("a process that is killed $when leaves no half snapshot", async ({ step, begun }) => {
    await using scene = await openTapped(subject)
    const { bench, vm, tap } = scene
    tap.at(step, (request) => {
      if (begun) request.pass()
      process.kill(vm.process.pid, "SIGKILL")
    })

    await expect(captureVm(bench, vm, "payload")).rejects.toMatchObject({ code: "hypervisor_gone" })

    await expectNothingLeft(bench, "payload")
    await expect.poll(async () => await processAlive(vm.process)).toBe(false)
  })
}
