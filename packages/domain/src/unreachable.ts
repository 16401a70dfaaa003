/** A server that is not reached, as messages name it. */
export interface Server {
  /** Such as `Postgres at db.example:5432`. */
  readonly name: string
  /** The setting that names it. */
  readonly setting: string
}

/** `url` gives the place, without its user, password and parameters; one that cannot be read gives none. */
export function serverAt(
  program: "Postgres" | "Redis",
  { url, setting }: { url: string | undefined; setting: string },
): Server {
  const place = url === undefined ? undefined : placeOf(url, program === "Postgres" ? 5432 : 6379)
  return { name: place === undefined ? program : `${program} at ${place}`, setting }
}

function placeOf(text: string, defaultPort: number): string | undefined {
  if (!URL.canParse(text)) return undefined
  const url = new URL(text)
  // pg takes the directory of a unix socket as a parameter, or as an encoded host.
  const host = url.searchParams.get("host") ?? decodeURIComponent(url.hostname)
  const port = url.port === "" ? (url.searchParams.get("port") ?? defaultPort) : url.port
  return `${host === "" ? "localhost" : host}:${port}`
}

interface Reason {
  readonly why: string
  /** A sentence; `{setting}` stands for the setting's name. */
  readonly remedy: string
}

const start = "Start it, or correct {setting}."
const certificate: Reason = {
  why: "its certificate is not one that this process trusts",
  remedy: "Give its CA in NODE_EXTRA_CA_CERTS, or correct the host name in {setting}.",
}

const byCode: Readonly<Record<string, Reason>> = {
  ECONNREFUSED: { why: "nothing listens there", remedy: start },
  ENOENT: { why: "there is no such socket", remedy: start },
  ENOTFOUND: {
    why: "no address is known for that name",
    remedy: "Correct the host in {setting}, or its DNS.",
  },
  EAI_AGAIN: { why: "the name server does not answer", remedy: "Check the DNS of this machine." },
  ETIMEDOUT: {
    why: "it does not answer",
    remedy: "Check the network and firewalls in between, or correct {setting}.",
  },
  EHOSTUNREACH: { why: "no way leads there", remedy: "Check the network, or correct {setting}." },
  ENETUNREACH: { why: "no way leads there", remedy: "Check the network, or correct {setting}." },
  ECONNRESET: { why: "it closed the connection", remedy: "Check that it runs and what its log says." },
  EPIPE: { why: "it closed the connection", remedy: "Check that it runs and what its log says." },
  UND_ERR_SOCKET: { why: "it closed the connection", remedy: "Check that it runs and what its log says." },
  UND_ERR_CONNECT_TIMEOUT: {
    why: "it does not answer",
    remedy: "Check the network and firewalls in between, or correct {setting}.",
  },
  ERR_TLS_CERT_ALTNAME_INVALID: certificate,
  CERT_HAS_EXPIRED: { why: "its certificate has expired", remedy: "Renew it." },
  DEPTH_ZERO_SELF_SIGNED_CERT: certificate,
  SELF_SIGNED_CERT_IN_CHAIN: certificate,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: certificate,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: certificate,
  ERR_SSL_WRONG_VERSION_NUMBER: {
    why: "it does not speak TLS there",
    remedy: "Take TLS out of {setting}, or turn it on in the server.",
  },
}

/** Clients give some errors no code. */
const byMessage: readonly (readonly [RegExp, Reason])[] = [
  [
    /^(Connection terminated due to connection timeout|timeout expired|Command timed out)/,
    byCode["ETIMEDOUT"]!,
  ],
  [/^(Connection terminated|Connection is closed|Client network socket disconnected)/, byCode["ECONNRESET"]!],
  [/^Reached the max retries/, { why: "it does not answer", remedy: start }],
]

/** Why a server is not reached; undefined for an error that is not about the network or TLS. */
function networkReason(error: Error): Reason | undefined {
  const { code = "" } = error as NodeJS.ErrnoException
  const found = byCode[code] ?? byMessage.find(([pattern]) => pattern.test(error.message))?.[1]
  if (found !== undefined) return found
  // Written into the words of another error, or one for each address of a host.
  const written = /\b(connect|read|write|getaddrinfo) (E[A-Z_]+)\b/.exec(error.message)?.[2]
  if (written !== undefined && byCode[written] !== undefined) return byCode[written]
  const [first] = error instanceof AggregateError ? (error.errors as unknown[]) : []
  return first instanceof Error ? networkReason(first) : undefined
}

/** `cannot reach X: why. Remedy.`; undefined for an error that is not about the network or TLS. */
export function unreachable(server: Server, error: Error): string | undefined {
  const reason = networkReason(error)
  return reason === undefined ? undefined : sentence(server, reason)
}

/** The sentence for a reason that the server itself gives. */
export function sentence({ name, setting }: Server, { why, remedy }: Reason): string {
  return `cannot reach ${name}: ${why}. ${remedy.replaceAll("{setting}", setting)}`
}
