import {
  PostgresDialect,
  PostgresDriver,
  type CompiledQuery,
  type DatabaseConnection,
  type Driver,
  type QueryResult,
  type TransactionSettings,
} from "kysely"
import type { Pool } from "pg"
import { acquire } from "./acquire.ts"
import { repeatOnConflict } from "./conflicts.ts"

/** Called with the reason when a query gets no connection. */
type OnRefused = (error: unknown) => void

/** Postgres over `pool`: waits for connections, and repeats single statements that met a conflict. */
export class PatientDialect extends PostgresDialect {
  readonly #pool: Pool

  readonly #onRefused: OnRefused

  constructor(pool: Pool, onRefused: OnRefused = () => undefined) {
    super({ pool })
    this.#pool = pool
    this.#onRefused = onRefused
  }

  override createDriver(): Driver {
    return new PatientDriver(this.#pool, this.#onRefused)
  }
}

class PatientDriver extends PostgresDriver {
  readonly #pool: Pool
  readonly #onRefused: OnRefused
  readonly #known = new WeakSet<DatabaseConnection>()
  readonly #inTransaction = new WeakSet<DatabaseConnection>()

  constructor(pool: Pool, onRefused: OnRefused) {
    super({ pool })
    this.#pool = pool
    this.#onRefused = onRefused
  }

  override async acquireConnection(): Promise<DatabaseConnection> {
    const connection = await acquire(this.#pool, () => super.acquireConnection()).catch((error: unknown) => {
      if (!this.#pool.ending) this.#onRefused(error)
      throw error
    })
    if (!this.#known.has(connection)) {
      this.#known.add(connection)
      this.#repeatSingleStatements(connection)
    }
    return connection
  }

  /** Outside a transaction a statement that fails has changed nothing. */
  #repeatSingleStatements(connection: DatabaseConnection): void {
    const execute = connection.executeQuery.bind(connection)
    connection.executeQuery = <R>(query: CompiledQuery): Promise<QueryResult<R>> =>
      this.#inTransaction.has(connection) ? execute<R>(query) : repeatOnConflict(() => execute<R>(query))
  }

  override async beginTransaction(
    connection: DatabaseConnection,
    settings: TransactionSettings,
  ): Promise<void> {
    await super.beginTransaction(connection, settings)
    this.#inTransaction.add(connection)
  }

  override async releaseConnection(
    connection: Parameters<PostgresDriver["releaseConnection"]>[0],
  ): Promise<void> {
    this.#inTransaction.delete(connection)
    await super.releaseConnection(connection)
  }
}
