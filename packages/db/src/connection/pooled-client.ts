import { pooledStartup } from "@stillframe/domain/postgres/session"
import { Client } from "pg"

/**
 * A connection to a pooler in transaction mode: it tells the pooler at its start what to set for each
 * transaction.
 */
export class PooledClient extends Client {
  /** Called by pg, whose types lack it: the parameters of the startup message. */
  protected getStartupConf(): Record<string, string> {
    const ofPg = Reflect.get(Client.prototype, "getStartupConf") as (this: Client) => Record<string, string>
    return { ...ofPg.call(this), ...pooledStartup }
  }
}
