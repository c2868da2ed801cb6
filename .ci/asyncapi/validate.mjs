// `node validate.mjs FILE`: what AsyncAPI's own parser finds in a document. Exit 1 for an error or a warning.
import { readFile } from "node:fs/promises";
import { argv, exit } from "node:process";
import { Parser } from "@asyncapi/parser";

const SEVERITIES = ["error", "warning", "information", "hint"];
const FAILING = 1;

const file = argv[2];
const { diagnostics } = await new Parser().parse(await readFile(file, "utf8"));
for (const { code, message, path, range, severity } of diagnostics) {
  const where = `${file}:${range.start.line + 1} /${path.join("/")}`;
  console.log(`${where}: ${SEVERITIES[severity]}: ${message} (${code})`);
}
const failing = diagnostics.filter(({ severity }) => severity <= FAILING).length;
console.log(`${file}: ${failing} errors and warnings`);
exit(failing ? 1 : 0);
