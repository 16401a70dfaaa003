import { StillframeError, type ErrorCode } from "@stillframe/domain/errors"
import type { VmmAnswer } from "../file-vmm/http.ts"
import { logHasWhy, refusedGuest } from "../refusal.ts"

const reasonCharactersMax = 500

/** By these, and by nothing else, a VMM judges the guest that it was given. */
const guestRequests: ReadonlySet<string> = new Set(["vm.create", "vm.boot"])

/**
 * Why the VMM did not carry out a request, as an error for whoever asked; the VMM's own words are in `said`.
 */
export function refusal(request: string, answer: VmmAnswer): StillframeError {
  const said = reasonOf(answer)
  const kind = kinds.find(({ words }) => words.test(said))
  if (kind !== undefined) return new StillframeError(kind.code, kind.message, { said })
  const message = `cloud-hypervisor refused ${request}; ${logHasWhy}`
  if (guestRequests.has(request)) return refusedGuest(message, said)
  return new StillframeError("hypervisor_failed", message, { said })
}

const kinds: readonly { words: RegExp; code: ErrorCode; message: string }[] = [
  {
    words: /\(os error (28|122)\)|No space left on device/,
    code: "insufficient_storage",
    message: "cloud-hypervisor found no space for its output; free some space and try again",
  },
  {
    words: /\(os error 12\)|Cannot allocate memory/,
    code: "insufficient_resources",
    message: "the host has no memory for this VM; end another one, or give it less",
  },
  {
    words: /Error locking disk images/,
    code: "hypervisor_failed",
    message: "another VM has one of its disks open; give each VM files of its own",
  },
]

/**
 * One line, outermost first. Since v48 the body is an array of strings, before it is text, and for what is no
 * JSON it is nothing.
 */
function reasonOf({ status, body }: VmmAnswer): string {
  const words = messages(body)
    .filter((message) => message !== "Error from API")
    .join(": ")
    .replaceAll(/\s+/g, " ")
    .replace(/^Error from API: /, "")
    .trim()
  return words.slice(0, reasonCharactersMax) || `status ${status} without a reason`
}

function messages(body: string): string[] {
  try {
    const parsed: unknown = JSON.parse(body)
    return Array.isArray(parsed) ? parsed.map(String) : [body]
  } catch {
    return [body]
  }
}
