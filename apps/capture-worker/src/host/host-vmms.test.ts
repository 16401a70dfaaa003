import { createLogger } from "@stillframe/runtime/logger"
import { expect, test } from "vitest"
import { configFromEnv } from "../config.ts"
import { probeHostVmms } from "./host-vmms.ts"

const log = createLogger({ service: "test", level: "silent" })
const required = { DATABASE_URL: "postgres://localhost/stillframe", DATA_DIR: "/nowhere" }

test("a hypervisor that is named and does not run here keeps the worker from starting, with what it needs", async () => {
  const config = configFromEnv({ ...required, VZ_SHIM_BINARY: "/bin/true" })

  await expect(probeHostVmms(config, { staging: undefined, log })).rejects.toMatchObject({
    code: "hypervisor_unavailable",
    message: expect.stringMatching(/macOS 14 or later on Apple silicon|is not a vz shim/),
  })
})

test("one that was just found and does not run here is not offered", async () => {
  const { vmms, ...config } = configFromEnv({ ...required, VZ_SHIM_BINARY: "/bin/true" })
  const found = new Map([...vmms].map(([name, { path }]) => [name, { path }]))

  expect((await probeHostVmms({ ...config, vmms: found }, { staging: undefined, log })).has("vz")).toBe(false)
})
