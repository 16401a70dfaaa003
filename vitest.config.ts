import { patienceMs } from "@stillframe/testing/patience"
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    // Most of a test is waiting for guests and databases.
    maxWorkers: 6,
    // Helper threads of the garbage collector, and many small collections, cost more than they save on so few processors.
    execArgv: ["--single-threaded-gc", "--max-semi-space-size=64"],
    // Tests load modules with Node's own loader, as the product does. It is no faster than Vitest's, which serves mocked modules.
    experimental: { viteModuleRunner: false, nodeLoader: false },
    // Not isolated: to start a process and load everything for each file costs more than most files do. A file leaves the
    // process as it found it.
    projects: [
      // Beside the code: needs no service.
      {
        test: {
          name: "unit",
          include: ["{apps,packages}/*/src/**/*.test.ts", "scripts/*.test.ts"],
          isolate: false,
          testTimeout: 30_000,
        },
      },
      // In tests/: real Postgres, real queues, real guests.
      {
        test: {
          name: "services",
          include: ["tests/src/**/*.test.ts"],
          isolate: false,
          globalSetup: ["tests/src/global-setup.ts"],
          // Limits for what is broken: three waits of patienceMs fit into a test on a busy machine.
          testTimeout: 180_000,
          hookTimeout: 180_000,
          expect: { poll: { timeout: patienceMs, interval: 20 } },
        },
      },
    ],
  },
})
