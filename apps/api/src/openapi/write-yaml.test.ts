import { expect, test } from "vitest"
import { stringify } from "yaml"
import { writeYaml } from "./write-yaml.ts"

test("YAML that is written in pieces is that of the whole", async () => {
  const shared = {
    type: "string",
    description: "a text that is longer than a line of YAML may be, ".repeat(5),
  }
  const document = {
    openapi: "3.1.1",
    info: { title: "a: b", description: "one\n\n# two\n", license: {} },
    servers: [{ url: "/" }],
    security: [],
    paths: {
      "/a/{id}": { get: { parameters: [shared, shared], responses: { "200": {} } }, post: {} },
      "/b": {},
    },
    components: {
      schemas: { One: shared, "*two": { properties: { yes: shared, null: null } } },
      headers: {},
    },
  }

  expect(await writeYaml(document)).toBe(stringify(document, { aliasDuplicateObjects: false }))
})
