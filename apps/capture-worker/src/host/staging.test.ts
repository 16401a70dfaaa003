import { chown, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { openStaging } from "./staging.ts"

async function host() {
  const root = await mkdtemp(join(tmpdir(), "stillframe-staging-"))
  const [dataDir, staging] = [join(root, "data"), join(root, "tmpfs")]
  const home = join(dataDir, "instances", "vm")
  for (const dir of [home, staging]) await mkdir(dir, { recursive: true })
  return { dataDir, staging, home, hostId: "h", [Symbol.asyncDispose]: () => rm(root, { recursive: true }) }
}

test("what a living captor staged stays when its worker starts anew, what no pause record names goes", async () => {
  await using place = await host()
  const dir = (await openStaging(place)) ?? ""
  for (const name of ["saving-held.64", "saving-dead.64"]) {
    await mkdir(join(dir, name))
    await writeFile(join(dir, name, "memory"), "saved")
  }
  await writeFile(join(place.home, "pause.json"), JSON.stringify({ token: "held" }))

  expect(await openStaging(place)).toBe(dir)

  expect(await readdir(dir)).toEqual(["saving-held.64"])
  expect((await stat(dir)).mode & 0o777).toBe(0o711)
})

test.for(["a link", "another user's directory"])("%s in its place is not used", async (what, { skip }) => {
  const isLink = what === "a link"
  skip(!isLink && process.getuid?.() !== 0, "only root can make another user's directory")
  await using place = await host()
  const dir = (await openStaging(place)) ?? ""
  if (isLink) {
    await rm(dir, { recursive: true })
    await symlink(place.home, dir)
  } else await chown(dir, 64_055, 64_055)
  await writeFile(join(place.home, "kept"), "somebody's")

  await expect(openStaging(place)).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("is not this service's own; remove it and start again"),
  })
  expect(await readdir(place.home)).toEqual(["kept"])
})
