// The oldest Node that runs the TypeScript. Plain JavaScript of Node 18: what is too old must be able to read
// this.
import process from "node:process"

const NODE_MIN = [24, 12]

export function isNodeRecent() {
  const [major, minor] = process.versions.node.split(".").map(Number)
  return major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])
}

/** Ends the process with one sentence and status 1 where Node is too old. */
export function requireRecentNode() {
  if (isNodeRecent()) return
  process.stderr.write(
    `Stillframe needs Node ${NODE_MIN.join(".")} or later and this is Node ${process.versions.node}: install Node 24 (nodejs.org), or use \`npm start\` and \`npx stillframe\`, which bring it.\n`,
  )
  process.exit(1)
}
