// Checks deploy/asyncapi.yaml with AsyncAPI's own parser: its JSON schema and its rules. Not run by tests/run: it needs
// Node.js.
//
//     npm install @asyncapi/parser && node tests/asyncapi.mjs deploy/asyncapi.yaml

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const { severity, code, message, path } of diagnostics) console.log(severity, code, path.join("."), message);
const errors = diagnostics.filter(({ severity }) => severity === 0);
if (!document || errors.length > 0) process.exit(1);
console.log(`${document.channels().all().length} channels, ${document.messages().all().length} messages: no errors`);
