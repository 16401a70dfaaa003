import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { startRedis } from "@stillframe/testing/redis"

// A parent to be killed by a test: starts one service, prints its pid and URL, and stays.
const [service, dir = ""] = process.argv.slice(2)
const started =
  service === "redis"
    ? await startRedis({ dir })
    : await startEmbeddedPostgres({ dataDir: dir, password: "secret", sync: false })
process.stdout.write(`${JSON.stringify({ pid: started.pid, url: started.url })}\n`)
process.stdin.resume()
