import { expect, test } from "vitest"
import { configFromEnv } from "./config.ts"

const required = {
  DATABASE_URL: "postgres://localhost/stillframe",
  JWT_SECRET: "j".repeat(32),
  SECRETS_KEY: "s".repeat(32),
}

test("what is not set has its default", () => {
  expect(configFromEnv(required)).toEqual({
    databaseUrl: required.DATABASE_URL,
    databaseDirectUrl: required.DATABASE_URL,
    listenHost: "127.0.0.1",
    port: 8080,
    jwtSecret: required.JWT_SECRET,
    jwtRequireExp: false,
    secretsKey: required.SECRETS_KEY,
    webhookAllowedCidrs: [],
    snapshotCreate: "async",
    openCaptures: { perInstance: 1_000, perHost: 10_000, perCaller: 5_000 },
    twinWaitMs: 10_000,
    streamHeartbeatMs: 15_000,
    limits: { perAddress: 20, perCaller: 100, streamsPerCaller: 50 },
    webhookLimits: { perInstallation: 1_000, perHost: 50 },
    trustedProxies: [],
    readyCacheMs: 1_000,
    keepAliveMs: 75_000,
    compression: { enabled: false, algorithm: "zstd" },
  })
})

test("the server's compression, a direct URL for LISTEN, ranges and limits are taken from their variables", () => {
  const config = configFromEnv({
    ...required,
    DATABASE_DIRECT_URL: "postgres://direct/stillframe",
    COMPRESSION_ENABLED: "true",
    COMPRESSION_ALGORITHM: "lz4",
    COMPRESSION_LEVEL: "0",
    WEBHOOK_ALLOWED_CIDRS: "10.0.0.0/8 fd00::/8",
    TRUSTED_PROXIES: "127.0.0.1/32,::1/128",
    CALLER_REQUESTS_PER_SECOND: "0",
  })

  expect(config.databaseDirectUrl).toBe("postgres://direct/stillframe")
  expect(config.compression).toEqual({ enabled: true, algorithm: "lz4", level: 0 })
  expect(config.trustedProxies).toEqual(["127.0.0.1/32", "::1/128"])
  expect(config.limits?.perCaller).toBe(0)
  expect(config.webhookAllowedCidrs).toEqual(["10.0.0.0/8", "fd00::/8"])
})

test("every mistake is reported, by its variable and never with its value", () => {
  const wrong = { JWT_SECRET: "short-secret", PORT: "70000", COMPRESSION_ENABLED: "yes" }

  expect(() => configFromEnv(wrong)).toThrow(
    /DATABASE_URL(.|\n)*JWT_SECRET(.|\n)*SECRETS_KEY(.|\n)*PORT(.|\n)*COMPRESSION_ENABLED/,
  )
  expect(() => configFromEnv(wrong)).not.toThrow(/short-secret/)
  expect(() => configFromEnv({ ...required, PORT: "70000", COMPRESSION_LEVEL: "0" })).toThrow(
    /PORT: must be[^]*COMPRESSION_LEVEL: level must be between 1 and 19 for zstd, got 0/,
  )
})
