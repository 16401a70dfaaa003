/** The reference's text for a call, and a request that works. */
export interface RouteText {
  /** Markdown. */
  readonly description: string
  readonly query?: Readonly<Record<string, unknown>>
  readonly body?: object
}

/**
 * By `operationId`, in the order in which the examples can be sent one after the other to an API that has one
 * host and nothing else. `{id}` of an instance is then `first`, of anything else the id that an earlier
 * example has made.
 */
export const routeTexts: Readonly<Record<string, RouteText>> = {
  getHealth: { description: "Answers as long as the process runs. Needs no token and no database." },
  getReady: {
    description:
      "Lists the hosts and compression-workers that are up, and the problems that are known. Answers 503 while no work can be done. Needs no token.",
  },
  getCapabilities: {
    description:
      "Lists what each host that is up can do with its hypervisors. The members beside `hosts` are those that Hypeman's clients read.",
  },
  listHosts: {
    description: "Lists the machines that run VMs, whether they are up or not. Hosts register by themselves.",
  },
  getHost: { description: "Shows a host, and what would be lost with it." },
  createInstance: {
    description:
      "Launches a VM from a built-in image, a kernel or a disk. With `attach` it takes over a QEMU that was started outside of Stillframe. The answer comes when the VM runs.",
    body: { name: "first", image: "heartbeat", tags: { team: "backend" } },
  },
  listInstances: {
    description: "Lists instances, newest first. Filters are combined with AND.",
    query: { state: "Running", limit: 10 },
  },
  getInstance: { description: "Shows an instance." },
  waitForInstanceState: {
    description: "Answers when the instance is in the state, or when the time is over.",
    query: { state: "Running", timeout: "30s" },
  },
  createInstanceSnapshot: {
    description:
      "Requests a snapshot. The answer is a 202 as soon as the request is recorded; the capture follows, and `captured_at` is the moment that the snapshot shows. " +
      "With `Prefer: wait=N` the answer comes when the capture is durable, and is a 201. " +
      "The answer is a 429 with `retry-after` while too many snapshots of the instance, of its host or of the caller wait to be captured.",
    body: {
      kind: "Standby",
      name: "before-upgrade",
      tags: { team: "backend" },
      compression: { enabled: true, algorithm: "zstd", level: 1 },
    },
  },
  listSnapshots: {
    description: "Lists snapshots, newest first. Filters are combined with AND.",
    query: { kind: "Standby", limit: 10 },
  },
  getSnapshot: {
    description:
      "Shows a snapshot. With `Prefer: wait=N` the answer comes when its capture and compression are over.",
  },
  verifySnapshot: {
    description:
      "Reads all files of the snapshot and compares them with what was captured. Damage is shown in `corrupted_at`.",
  },
  compressSnapshot: {
    description:
      "Compresses the memory of the snapshot, also after an error or with another algorithm or level.",
    body: { algorithm: "zstd", level: 19 },
  },
  forkSnapshot: {
    description:
      "Makes a new instance that continues where the snapshot was captured. The snapshot and its instance do not change.",
    body: { name: "second" },
  },
  stopInstance: {
    description:
      "Asks the guest to shut down, for up to `STOP_GRACE` seconds, and then ends the VM. Its disks stay.",
  },
  startInstance: { description: "Boots a stopped instance from its disks.", body: {} },
  standbyInstance: { description: "Saves the memory of the VM to disk and ends its process.", body: {} },
  restoreInstance: { description: "Resumes an instance in Standby where it was." },
  restoreInstanceSnapshot: {
    description:
      "Puts an instance that is stopped or in Standby back to one of its snapshots. If that fails, the instance stays as it was.",
    body: { target_state: "Running" },
  },
  createWebhook: {
    description:
      "Creates a webhook: a POST of each event to a URL, signed by the rules of Standard Webhooks. The secret is shown only in this answer.",
    body: { url: "https://example.com/hook", event_types: ["snapshot.*"], description: "my receiver" },
  },
  listWebhooks: { description: "Lists webhooks, newest first, without their secrets.", query: { limit: 10 } },
  getWebhook: { description: "Shows a webhook, without its secret." },
  updateWebhook: {
    description:
      "Changes the given members of a webhook. `enabled: true` also sends what has waited while it was disabled.",
    body: { event_types: ["snapshot.completed", "snapshot.failed"], enabled: true },
  },
  rotateWebhookSecret: {
    description:
      "Makes a new secret. For `grace_seconds` the old one signs as well, so that receivers can follow.",
    body: { grace_seconds: 3_600 },
  },
  testWebhook: { description: "Sends an event of type `webhook.test` to this webhook only." },
  recoverWebhook: {
    description: "Sends the events of a period that were not delivered to the webhook.",
    body: { since: "2025-01-01T00:00:00Z" },
  },
  replayWebhook: {
    description: "Sends the events of a range of sequences, including delivered ones.",
    body: { from_sequence: 1, to_sequence: 100 },
  },
  listDeliveries: {
    description: "Lists the deliveries of a webhook, those of the newest events first.",
    query: { limit: 10 },
  },
  getDelivery: { description: "Shows a delivery with its newest 100 attempts." },
  resendDelivery: { description: "Sends a delivery again, with the same `webhook-id`." },
  listEvents: {
    description:
      "Lists events, oldest first. To continue, set `after` to the last `sequence` that you have read. Answers 410 when events after it are no longer kept.",
    query: { after: 0, types: "snapshot.completed,snapshot.failed" },
  },
  streamEvents: {
    description: "Streams events as they happen, from `Last-Event-ID`, else from `after`, else from now.",
    query: { after: 0 },
  },
  deleteWebhook: { description: "Deletes a webhook and its deliveries. Nothing more is sent." },
  deleteSnapshot: {
    description:
      "Deletes a snapshot. It is gone at once; its files follow when no fork or restore reads them.",
  },
  deleteInstance: {
    description:
      "Ends the VM and deletes the instance; its snapshots stay. An attached VM keeps running, and its instance is forgotten.",
    query: { graceful_shutdown: "true" },
  },
  forgetHost: {
    description:
      "Forgets a host that will not come back. Its instances are deleted and its unfinished captures fail; snapshots stay. Needs the scope `snapshot:delete` as well.",
    query: { confirm: 1 },
  },
}

/** The names in examples of paths. Real ids are made when a request is answered. */
export const exampleNames: Readonly<Record<string, string>> = {
  "instances/id": "first",
  "hosts/name": "web-1",
  "snapshots/id": "q7z1w7l2af4l8y7q1h7g2m3s",
  "webhooks/id": "b2f0c8d6k4m1n3p5r7t9v2x4",
  "deliveries/id": "1",
  "instances/snapshotId": "q7z1w7l2af4l8y7q1h7g2m3s",
}
