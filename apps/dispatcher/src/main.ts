import { runProcess } from "@stillframe/runtime/process"
import { configFromEnv } from "./config.ts"
import { startDispatcher } from "./start.ts"

await runProcess("dispatcher", async ({ env, log, resources }) => {
  resources.use(await startDispatcher(configFromEnv(env), log))
})
