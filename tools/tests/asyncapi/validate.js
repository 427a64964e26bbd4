// Whether AsyncAPI's own parser accepts each file named: prints what it says against one, and exits with 1.

import { Parser, fromFile } from "@asyncapi/parser";

const parser = new Parser();
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await fromFile(parser, file).parse();
  const errors = diagnostics.filter(({ severity }) => severity === 0);
  for (const { path, message } of errors) console.log(`${file}: ${path.join(".")}: ${message}`);
  if (!document || errors.length > 0) process.exitCode = 1;
}
