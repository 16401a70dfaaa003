import { startTestServices } from "@stillframe/testing/database"
import type { TestProject } from "vitest/node"

/** The services that all tests of a run share; each test makes a database and a prefix of its own in them. */
export async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const services = await startTestServices()
  provide("postgresUrl", services.postgresUrl)
  provide("templateDatabase", services.templateDatabase)
  provide("redisUrl", services.redisUrl)
  return async () => {
    await services[Symbol.asyncDispose]()
  }
}
