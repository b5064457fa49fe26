// Runs the table of cases with the client for Node. HODEI_CONFORMANCE names the file that says how.
import { readFileSync } from "node:fs";

import { Client } from "../src/node.js";
import { runCase, type Settings } from "./interpreter.js";

const file = JSON.parse(readFileSync(process.env["HODEI_CONFORMANCE"]!, "utf8")) as Settings & { cases: string };
const settings: Settings = { ...file, ...JSON.parse(readFileSync(file.cases, "utf8")) };

process.on("unhandledRejection", (error) => {
  console.error("nobody handled", error);
  process.exit(1);
});
const only = process.env["CASE"];
for (const one of settings.cases) {
  if (only && !one.name.includes(only)) continue;
  const report = await runCase({ settings, makeClient: (options, environment) => new Client({ ...options, environment }) }, one);
  console.log(JSON.stringify(report));
}
