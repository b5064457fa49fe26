// Runs the table of cases in a page of a real browser. HODEI_CONFORMANCE names the file that says how.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";

import { withBrowser } from "./chromium.js";
import type { Report, Settings } from "./interpreter.js";

declare global {
  /** The bundle of page.ts. */
  var page: typeof import("./page.js");
}

const file = JSON.parse(readFileSync(process.env["HODEI_CONFORMANCE"]!, "utf8")) as Settings & { cases: string };
const settings: Settings = { ...file, ...JSON.parse(readFileSync(file.cases, "utf8")) };
const { variables } = settings;
const variablesOfPage = ["HODEI_URL", "HODEI_TOKEN", "HODEI_NAMESPACE"];
const environment = Object.fromEntries(variablesOfPage.map((name) => [name, process.env[name] ?? ""]));

const bundle = await build({
  entryPoints: ["test/page.ts"],
  bundle: true,
  format: "iife",
  globalName: "page",
  platform: "browser",
  write: false,
});
const script = bundle.outputFiles[0]!.text;
const server = createServer((request, response) => {
  if (request.url === "/page.js") response.setHeader("Content-Type", "text/javascript").end(script);
  else response.setHeader("Content-Type", "text/html").end("<!doctype html><title>cases</title><script src=/page.js></script>");
});
const origin = new URL(variables["browser_origin"]!);
await new Promise<void>((resolve, reject) => {
  server.on("error", reject);
  server.listen(Number(origin.port), origin.hostname, resolve);
});

await withBrowser(["ca", "full_ca", "other_version_ca"].flatMap((name) => variables[name] ?? []), async (context) => {
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error("the page has an error:", error));
  await page.goto(`${origin.origin}/`);
  await page.evaluate(
    ([settings, environment]) => globalThis.page.start(settings, environment),
    [settings, environment] as const,
  );
  const only = process.env["CASE"];
  for (const one of settings.cases) {
    if (only && !one.name.includes(only)) continue;
    const report: Report = await page.evaluate((one) => globalThis.hodei.runCase(one), one);
    console.log(JSON.stringify(report));
  }
  const unhandled = await page.evaluate(() => globalThis.hodei.unhandled);
  if (unhandled.length) {
    console.error("nobody handled", unhandled);
    process.exitCode = 1;
  }
});
server.close();
server.closeAllConnections();
