import { randomBytes } from "node:crypto"
import { GenericContainer, Wait, type StartedTestContainer } from "testcontainers"

const postgresPort = 5_432
const redisPort = 6_379

export interface ContainerServices extends AsyncDisposable {
  readonly postgresUrl: string
  readonly redisUrl: string
}

/**
 * Postgres and Redis in containers, from the images that `POSTGRES_IMAGE` and `REDIS_IMAGE` name: for trying
 * other versions than the ones that come with us. Needs a container engine.
 */
export async function startContainers(): Promise<ContainerServices> {
  const password = randomBytes(16).toString("hex")
  await using opened = new AsyncDisposableStack()
  const own = (container: StartedTestContainer): StartedTestContainer => {
    opened.defer(async () => void (await container.stop()))
    return container
  }
  const postgres = own(
    await new GenericContainer(process.env["POSTGRES_IMAGE"] ?? "postgres:18")
      .withEnvironment({
        POSTGRES_USER: "stillframe",
        POSTGRES_PASSWORD: password,
        POSTGRES_DB: "stillframe",
      })
      .withCommand(["postgres", "-c", "max_connections=200", "-c", "fsync=off"])
      .withExposedPorts(postgresPort)
      // While the image sets itself up it listens on no port.
      .withWaitStrategy(Wait.forListeningPorts())
      .start(),
  )
  const redis = own(
    await new GenericContainer(process.env["REDIS_IMAGE"] ?? "redis:7")
      .withCommand(["redis-server", "--maxmemory-policy", "noeviction", "--appendonly", "yes"])
      .withExposedPorts(redisPort)
      .start(),
  )
  const services = opened.move()
  return {
    postgresUrl: `postgres://stillframe:${password}@${postgres.getHost()}:${postgres.getMappedPort(postgresPort)}/stillframe`,
    redisUrl: `redis://${redis.getHost()}:${redis.getMappedPort(redisPort)}`,
    [Symbol.asyncDispose]: () => services.disposeAsync(),
  }
}
