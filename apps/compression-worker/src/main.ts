import { runProcess } from "@stillframe/runtime/process"
import { configFromEnv } from "./config.ts"
import { startCompressionWorker } from "./start.ts"

await runProcess("compression-worker", async ({ env, log, resources }) => {
  resources.use(await startCompressionWorker(configFromEnv(env), log))
})
