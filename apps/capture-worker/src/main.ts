import { runProcess } from "@stillframe/runtime/process"
import { configFromEnv } from "./config.ts"
import { startCaptureWorker } from "./start.ts"

await runProcess("capture-worker", async ({ env, log, resources }) => {
  resources.use(await startCaptureWorker(configFromEnv(env), log))
})
