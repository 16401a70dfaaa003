import { scopeEffects, scopes, type Scope } from "@stillframe/domain/scopes"
import type { Route } from "../http/route.ts"

/**
 * A Markdown table: each scope, the calls that the routes let it make, and what can be done with it in the
 * end.
 */
export function scopeTable(routes: readonly Route[]): string {
  const rows = scopes.map((scope) => `| \`${scope}\` | ${scopeEffects[scope]} | ${callsOf(routes, scope)} |`)
  return ["| scope | a token with it | calls |", "|---|---|---|", ...rows].join("\n")
}

function callsOf(routes: readonly Route[], scope: Scope): string {
  const calls = routes.flatMap((route) => {
    const call = `\`${route.method.toUpperCase()} ${templateOf(route.path)}\``
    if (route.scope === scope || route.narrowerScope === scope) return [call]
    return route.alsoScope?.scope === scope ? [`${call} with \`${route.scope}\``] : []
  })
  return calls.join(", ")
}

/** `/instances/:id` as OpenAPI writes it. */
export function templateOf(path: string): string {
  return path.replaceAll(/:(\w+)/g, "{$1}")
}
