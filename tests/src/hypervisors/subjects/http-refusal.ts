/** A whole HTTP answer. */
export function httpRefusal(status: number, body: string): string {
  const head = [`HTTP/1.1 ${status} Refused`, `Content-Length: ${Buffer.byteLength(body)}`, "", ""]
  return head.join("\r\n") + body
}
