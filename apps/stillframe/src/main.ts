import { Command } from "commander"
import type { TokenOptions } from "./token-command.ts"

// Each verb imports what it needs when it runs: all of it together takes most of a second.
const program = new Command("stillframe").description("VM snapshots as jobs")

program
  .command("start")
  .description("start the whole stack on this machine, with an embedded Postgres unless DATABASE_URL is set")
  .action(async () => {
    const { start } = await import("./start.ts")
    await start()
  })

program
  .command("demo")
  .description("show the main job end to end: snapshot a running guest, receive the webhook, fork it")
  .action(async () => {
    const { demo } = await import("./demo.ts")
    await demo()
  })

program
  .command("token")
  .description("print a bearer token for the API that has this environment's JWT_SECRET")
  .option("--scope <scope...>", "what it may do, such as snapshot:read; without this option everything", [])
  .option("--expires <duration>", "how long it is valid, such as 15m or 24h", "24h")
  .option("--subject <name>", "whose it is", "local")
  .action(async (options: TokenOptions) => {
    const { printToken } = await import("./token-command.ts")
    await printToken(options)
  })

await program.parseAsync()
