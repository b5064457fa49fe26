// Uses the example of a page as a person would: ORIGIN is where it is served, HODEI_URL, HODEI_TOKEN and HODEI_CA name the server.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";

import { withBrowser } from "./chromium.js";

const folder = "../../examples/typescript/web";
const { outputFiles } = await build({
  entryPoints: [`${folder}/page.ts`],
  alias: { "@hodei/client/web": "./src/web.ts" },
  bundle: true,
  format: "esm",
  write: false,
});
const script = outputFiles[0]!.text;
const server = createServer((request, response) => {
  if (request.url === "/page.js") response.setHeader("Content-Type", "text/javascript").end(script);
  else response.setHeader("Content-Type", "text/html").end(readFileSync(`${folder}/index.html`));
});
const origin = new URL(process.env["ORIGIN"]!);
await new Promise<void>((resolve) => server.listen(Number(origin.port), origin.hostname, resolve));
await withBrowser([process.env["HODEI_CA"]!], async (context) => {
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error("the page has an error:", error));
  await page.goto(origin.href);
  await page.getByLabel("Server").fill(process.env["HODEI_URL"]!);
  await page.getByLabel("Token").fill(process.env["HODEI_TOKEN"]!);
  const run = async (script: string) => {
    await page.getByLabel("Script").fill(script);
    await page.getByRole("button", { name: "Run" }).click();
  };
  const ended = async () => {
    await page.getByRole("button", { name: "Run" }).and(page.locator(":enabled")).waitFor();
    console.log(await page.getByRole("log").innerText());
    console.log((await page.getByRole("status").innerText()).replace(/job_\w+/, "ID").split(" https://")[0]);
  };
  await run("echo '<b>one</b>'; echo two");
  await ended();
  await run("echo started; sleep 600");
  await page.getByText("started", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await ended();
});
server.close();
server.closeAllConnections();
