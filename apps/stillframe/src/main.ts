import { Command, InvalidArgumentError } from "commander"
import type { CompressOptions, OutputOptions } from "./files/commands.ts"
import type { StorageInitOptions } from "./storage-init.ts"
import type { TokenOptions } from "./token-command.ts"
import type { ListenOptions } from "./webhooks/listen.ts"

// Each verb imports what it needs when it runs: all of it together takes most of a second.
const program = new Command("stillframe").description("VM snapshots as jobs")

program
  .command("start")
  .description("start the whole stack on this machine, with an embedded Postgres unless DATABASE_URL is set")
  .action(async () => {
    const { start } = await import("./stack/start.ts")
    await start()
  })

program
  .command("demo")
  .description("show the main job end to end: snapshot a running guest, receive the webhook, fork it")
  .action(async () => {
    const { demo } = await import("./demo/demo.ts")
    await demo()
  })

program
  .command("token")
  .description(
    "print a bearer token, signed with JWT_SECRET or else with the secret that npm start made in DATA_DIR",
  )
  .option("--scope <scope...>", "what it may do, such as snapshot:read; without this option everything", [])
  .option("--expires <duration>", "how long it is valid, such as 15m or 24h", "24h")
  .option("--subject <name>", "whose it is", "local")
  .action(async (options: TokenOptions) => {
    const { printToken } = await import("./token-command.ts")
    await printToken(options)
  })

/** The last of several would win without a word. */
function onlyOne(output: string, before: string | undefined): string {
  if (before === undefined) return output
  throw new InvalidArgumentError(`it is given twice; there is one output.`)
}

const drafts = `
While it is made, the output is .stillframe-….partial in the same directory. A verb that was killed outright (SIGKILL) leaves that
file; the next one with an output in the directory removes it, and after a restart of the machine you may.
`
const exitStatus = `
Exit status: 0 when done, 1 with the reason on standard error, 128 and the signal's number when a signal ended it.`

program
  .command("compress <file>")
  .description("compress a file so that zstd or lz4 reads it, and any place of it is read at once")
  .requiredOption("-o, --output <out>", "the file to make, a pipe, or - for standard output", onlyOne)
  .option("--algorithm <name>", "zstd or lz4", "zstd")
  .option("--level <n>", "zstd: 1 to 19, without this option 1; lz4: 0 to 9, without it 0")
  .option("--force", "replace the output if it exists")
  .addHelpText("after", drafts + exitStatus)
  .action(async (file: string, options: CompressOptions) => {
    const { compress } = await import("./files/commands.ts")
    await compress(file, options)
  })

program
  .command("decompress <file>")
  .description(
    "write the content of a zstd or lz4 file (-: standard input), with holes where it is all zeros",
  )
  .requiredOption(
    "-o, --output <out>",
    "the file to make, a pipe, a block device, or - for standard output",
    onlyOne,
  )
  .option("--force", "replace the output if it exists, or overwrite a block device")
  .addHelpText("after", drafts + exitStatus)
  .action(async (file: string, options: OutputOptions) => {
    const { decompress } = await import("./files/commands.ts")
    await decompress(file, options)
  })

program
  .command("verify <file>")
  .description("read a zstd or lz4 file (-: standard input) back from the device and check all of it")
  .addHelpText("after", exitStatus)
  .action(async (file: string) => {
    const { verify } = await import("./files/commands.ts")
    await verify(file)
  })

program
  .command("cat <file>")
  .description(
    "write the content of a zstd or lz4 file (-: standard input), or a part of it, to standard output",
  )
  .addHelpText("after", exitStatus)
  .option("--offset <n>", "where the part begins, in bytes of the content")
  .option("--length <n>", "how many bytes it has at most")
  .action(async (file: string, range: { offset?: string; length?: string }) => {
    const { cat } = await import("./files/commands.ts")
    await cat(file, range)
  })

program
  .command("storage")
  .description("help with directories that the database does not recognise")
  .command("init")
  .description("make STORAGE_DIR the directory of STORAGE_POOL: a new disk, or an empty one on purpose")
  .option("--host", "make DATA_DIR the one of HOST_NAME instead")
  .option("--replace-lost", "also where that gives up snapshots, or instances' disks, that are not in it")
  .action(async (options: StorageInitOptions) => {
    const { storageInit } = await import("./storage-init.ts")
    await storageInit(options)
  })

program
  .command("webhook")
  .description("help for those who receive webhooks")
  .command("listen")
  .description("receive webhooks on this machine, verify them and print a line for each, until Ctrl-C")
  .option("--port <n>", "the port on 127.0.0.1; 0: any free one", "8090")
  .option(
    "--secret <whsec>",
    "the webhook's secret; other users see arguments: STILLFRAME_WEBHOOK_SECRET hides it",
  )
  .option("--create", "make a webhook at STILLFRAME_URL with STILLFRAME_TOKEN, and delete it at the end")
  .option("--types <type...>", "the event types of the webhook that --create makes; without it all", [])
  .option("--json", "print each verified event as a line of JSON")
  .action(async (options: ListenOptions) => {
    const { listen } = await import("./webhooks/listen.ts")
    await listen(options)
  })

await program.parseAsync()
