import { runProcess } from "@stillframe/runtime/process"
import { configFromEnv } from "./config.ts"
import { startApi } from "./start.ts"

await runProcess("api", async ({ env, log, resources }) => {
  resources.use(await startApi(configFromEnv(env), log))
})
