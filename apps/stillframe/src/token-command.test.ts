import { spawnSync } from "node:child_process"
import { authenticator } from "@stillframe/api/auth"
import { expect, test } from "vitest"

const jwtSecret = "0123456789abcdef0123456789abcdef"

test("what it prints is a token that the API takes, and that may do everything", async () => {
  const { stdout } = printToken({ JWT_SECRET: jwtSecret })

  const bearer = await authenticator(jwtSecret)(`Bearer ${stdout.trim()}`)
  expect(bearer.allows("snapshot:delete")).toBe(true)
})

test("a secret that is too short is refused by the name of its variable", () => {
  const { status, stderr } = printToken({ JWT_SECRET: "short" })

  expect(status).toBe(1)
  expect(stderr).toMatch(/^settings that can't be used:\n {2}JWT_SECRET: must .*\n$/)
})

function printToken(env: Record<string, string>): ReturnType<typeof spawnSync> & { stdout: string } {
  const command = JSON.stringify(new URL("token-command.ts", import.meta.url).href)
  const program = `const { printToken } = await import(${command}); await printToken(1)`
  return spawnSync(process.execPath, ["--input-type=module", "--eval", program], { env, encoding: "utf8" })
}
