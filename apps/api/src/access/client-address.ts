import type { Logger } from "@stillframe/runtime/logger"
import { networkOf } from "@stillframe/runtime/network-of"
import type { Request } from "express"

/**
 * Tells the network that a request comes from, as a key for its limits. Behind the proxies that Express was
 * told to trust it is the one in `X-Forwarded-For`. One line in the log says when the header of another proxy
 * is ignored, as all strangers behind it then share one limit.
 */
export function openClientAddress(log: Logger): (req: Request) => string {
  let told = false
  return (req) => {
    const { remoteAddress = "" } = req.socket
    if (!told && req.headers["x-forwarded-for"] !== undefined && req.ip === remoteAddress) {
      told = true
      log.warn({ remoteAddress }, "X-Forwarded-For is ignored; add the proxy's address to TRUSTED_PROXIES")
    }
    return networkOf(req.ip ?? "") ?? networkOf(remoteAddress) ?? ""
  }
}
