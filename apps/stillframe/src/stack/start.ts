import { runProcess } from "@stillframe/runtime/process"
import { startStack } from "./stack.ts"

/** `npm start`: runs until Ctrl-C, and tells how to talk to it. VMs that it started go on without it. */
export async function start(): Promise<void> {
  await runProcess("stillframe", async ({ env, log, resources, stopping }) => {
    const stack = resources.use(await startStack(env, log, stopping))
    console.log(`
Stillframe listens on ${stack.url}. Everything it keeps is in ${stack.dataDir}.

  curl -H "Authorization: Bearer $(cat ${stack.tokenFile})" ${stack.url}/instances
  curl -H "Authorization: Bearer $(cat ${stack.tokenFile})" -H 'Content-Type: application/json' \\
       -d '{"name":"first","image":"demo"}' ${stack.url}/instances

VMs go on running after Ctrl-C; DELETE /instances/<id> ends one.
`)
  })
}
