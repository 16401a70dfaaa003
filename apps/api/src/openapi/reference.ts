import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Express, RequestHandler } from "express"
import helmet from "helmet"
import type { Route } from "../http/route.ts"
import { openApiDocument } from "./document.ts"
import { writeYaml } from "./write-yaml.ts"

const assetsDir = dirname(fileURLToPath(import.meta.resolve("swagger-ui-dist/package.json")))
const assets = ["swagger-ui.css", "swagger-ui-bundle.js"]

/** The API's description for programs and, as a page from our own origin, for people. Open to anybody. */
export function mountReference(app: Express, routes: readonly Route[]): void {
  // When they are first asked for: to make both takes longer than the rest of the API's start.
  const document = once(() => openApiDocument(routes))
  const json = once(async () => Buffer.from(JSON.stringify(await document())))
  const yaml = once(async () => Buffer.from(await writeYaml(await document())))
  const serve = (type: string, made: () => Promise<Buffer>): RequestHandler => {
    return (_req, res, next) => void made().then((bytes) => res.type(type).send(bytes), next)
  }
  app.get("/spec.json", serve("application/json", json))
  app.get("/spec.yaml", serve("application/yaml", yaml))
  // Hypeman's server has its page at these paths.
  for (const path of ["/", "/swagger"]) app.get(path, (_req, res) => res.redirect(302, "/docs"))
  app.get("/docs", pagePolicy, (_req, res) => void res.type("html").send(page))
  app.get("/docs/start.js", (_req, res) => void res.type("text/javascript").send(startScript))
  for (const name of assets)
    app.get(`/docs/${name}`, (_req, res) => res.sendFile(join(assetsDir, name), { maxAge: "1d" }))
}

function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => (made ??= make())
}

// The page's own styles are in elements; scripts are files of ours, and it talks to us alone.
const pagePolicy = helmet({
  contentSecurityPolicy: {
    useDefaults: false,
    directives: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: ["'self'", "'unsafe-inline'"],
      imgSrc: ["'self'", "data:"],
      connectSrc: ["'self'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
      frameAncestors: ["'none'"],
    },
  },
})

const page = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Stillframe API</title>
    <link rel="stylesheet" href="/docs/swagger-ui.css">
  </head>
  <body>
    <main id="reference"><a href="/spec.yaml">The API as OpenAPI</a></main>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
`

const startScript = `SwaggerUIBundle({
  url: "/spec.json",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
})
`
