// Runs the table of cases with the client that the settings name.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { client } = JSON.parse(readFileSync(process.env.HODEI_CONFORMANCE, "utf8"));
const driver = client === "browser" ? "test/browser.ts" : "test/conformance.ts";
const run = fileURLToPath(new URL("run.mjs", import.meta.url));
process.exit(spawnSync(process.execPath, [run, driver], { stdio: "inherit" }).status ?? 1);
