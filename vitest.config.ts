import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    // Most of a test is waiting for guests and databases.
    maxWorkers: 3,
    projects: [
      // Beside the code: needs no service.
      { test: { name: "unit", include: ["{apps,packages}/*/src/**/*.test.ts"], testTimeout: 30_000 } },
      // In tests/: real Postgres, real queues, real guests.
      {
        test: {
          name: "services",
          include: ["tests/src/**/*.test.ts"],
          globalSetup: ["tests/src/global-setup.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // A condition, not a duration: how long a busy machine may take to meet it.
          expect: { poll: { timeout: 20_000, interval: 20 } },
        },
      },
    ],
  },
})
