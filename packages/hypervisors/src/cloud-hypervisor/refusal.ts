import { StillframeError, type ErrorCode } from "@stillframe/domain/errors"
import type { VmmAnswer } from "../vmm-http.ts"
import { vmFiles } from "./files.ts"

const reasonCharactersMax = 500

/** What the VMM said about a request that it did not carry out, as an error for whoever asked. */
export function refusal(request: string, answer: VmmAnswer): StillframeError {
  const reason = reasonOf(answer)
  const { code, remedy } = kinds.find(({ words }) => words.test(reason)) ?? otherwise
  return new StillframeError(code, `cloud-hypervisor refused ${request}: ${reason}; ${remedy}`)
}

const kinds: readonly { words: RegExp; code: ErrorCode; remedy: string }[] = [
  {
    words: /\(os error (28|122)\)|No space left on device/,
    code: "insufficient_storage",
    remedy: "free some space and try again",
  },
  {
    words: /\(os error 12\)|Cannot allocate memory/,
    code: "insufficient_resources",
    remedy: "end another VM, or give this one less memory",
  },
  {
    words: /Error locking disk images/,
    code: "hypervisor_failed",
    remedy: "another VM has one of its disks open; give each VM files of its own",
  },
]

const otherwise = {
  code: "hypervisor_failed",
  remedy: `look at the VM's ${vmFiles.log}`,
} as const

/** One line, outermost first. Since v48 the body is an array of strings, before it is text, and for what is no JSON it is nothing. */
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
