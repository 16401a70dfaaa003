import { StillframeError } from "@stillframe/domain/errors"

/**
 * Talks to a Stillframe server: JSON in, JSON out, any answer that is not 2xx thrown as its message. `warn`
 * is told which members of a request the server does not know, and what else it warns of.
 */
export interface Client {
  request<T>(
    method: "GET" | "POST" | "DELETE",
    path: string,
    body?: object,
    headers?: Record<string, string>,
  ): Promise<T>
}

export function client({
  url,
  token,
  warn = console.error,
}: {
  url: string
  token: string
  warn?: (sentence: string) => void
}): Client {
  return {
    async request<T>(
      method: "GET" | "POST" | "DELETE",
      path: string,
      body?: object,
      headers: Record<string, string> = {},
    ): Promise<T> {
      const response = await fetch(new URL(path, url), {
        method,
        headers: {
          ...headers,
          authorization: `Bearer ${token}`,
          ...(body !== undefined && { "content-type": "application/json" }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }).catch((cause: unknown) => {
        throw new StillframeError("unavailable", `${url} can't be reached; is Stillframe running there?`, {
          cause,
        })
      })
      const ignored = response.headers.get("x-ignored")
      if (ignored !== null)
        warn(
          `warning: ${method} ${path}: the server does not know ${ignored} and ignored it; check the spelling`,
        )
      const warning = response.headers.get("x-warning")
      if (warning !== null) warn(`warning: ${method} ${path}: ${warning}`)
      const text = await response.text()
      if (!response.ok) throw new RequestError(method, path, response.status, text)
      return (text === "" ? undefined : JSON.parse(text)) as T
    },
  }
}

/** An answer that is not 2xx. */
export class RequestError extends Error {
  override readonly name = "RequestError"
  readonly status: number
  /** As it came. */
  readonly body: string

  constructor(method: string, path: string, status: number, body: string) {
    super(`${method} ${path} answered ${status}: ${body}`)
    this.status = status
    this.body = body
  }
}
