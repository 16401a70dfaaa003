import { toStillframeError, type StillframeError } from "@stillframe/domain/errors"
import { unsavable } from "@stillframe/domain/restorable"
import fc from "fast-check"
import { expect, test } from "vitest"
import { refusal } from "./cloud-hypervisor/refusal.ts"
import { openDirectory } from "./files/open-directory.ts"
import { runProgram } from "./process/run-program.ts"
import { refusedGuest } from "./refusal.ts"

const never = new AbortController().signal

/** Words that name a path and a command line, as QEMU's and the system's do. */
const words = fc
  .tuple(
    fc.constantFrom("Could not open", "-kernel", "ENOENT:", "Failed"),
    fc.stringMatching(/^[a-z]{8,20}$/),
  )
  .map(([begin, name]) => `${begin} '/srv/${name}/disk0.base'`)

/** Each way by which the words of a program or of the system become an error of ours. */
const ways: Readonly<Record<string, (said: string) => StillframeError>> = {
  "an error of a library": (said) => toStillframeError(new Error(said)),
  "a system call's error": (said) => toStillframeError(Object.assign(new Error(said), { code: "EIO" })),
  "a full disk": (said) => toStillframeError(Object.assign(new Error(said), { code: "ENOSPC" })),
  "a refused guest": (said) => refusedGuest("QEMU ended with status 1", said),
  "a refused request": (said) => refusal("vm.pause", { status: 500, body: said }),
  "a refused boot": (said) => refusal("vm.boot", { status: 500, body: said }),
}

test.each(Object.entries(ways))("the words of %s are the log's, and no caller's", (_, errorOf) => {
  fc.assert(
    fc.property(words, (said) => {
      const error = errorOf(said)

      expect(error.said).toContain(said)
      expect(error.message).not.toContain("/srv/")
    }),
  )
})

test("a helper program's complaint is the log's, and so is its path", async () => {
  const failing = ["-c", "echo cannot read /srv/secret >&2; exit 1"]

  await expect(runProgram("/bin/sh", failing, { signal: never })).rejects.toMatchObject({
    said: "cannot read /srv/secret",
    message: "sh failed; the log of the capture-worker says why",
  })
  await expect(runProgram("/srv/secret/qemu-img", [], { signal: never })).rejects.toMatchObject({
    message: expect.not.stringContaining("/srv/"),
  })
})

test("a directory that is gone is not named", () => {
  expect(() => openDirectory("/srv/secret")).toThrow(
    expect.objectContaining({
      message: expect.not.stringContaining("/srv/"),
      said: expect.stringContaining("/srv/secret"),
    }),
  )
})

test("what keeps QEMU from saving a VM is named where it is a device, and no path is", () => {
  expect(unsavable(["non-migratable device: 0000:00:01.0/nvme"])).toContain("the device 0000:00:01.0/nvme")
  expect(unsavable(["Migration is disabled when VirtFS export path '/srv/secret' is mounted"])).not.toContain(
    "/srv/",
  )
})
