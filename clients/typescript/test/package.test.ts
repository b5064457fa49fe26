import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { build } from "esbuild";

import { VERSION } from "../src/version.js";

test("the version is that of the package", () => {
  assert.equal(VERSION, JSON.parse(readFileSync("package.json", "utf8")).version);
});

test("the client for pages needs nothing of Node, nor of the client for it", async () => {
  const { metafile } = await build({
    entryPoints: ["src/web.ts", "src/api.ts"],
    bundle: true,
    platform: "browser",
    format: "esm",
    outdir: "unused",
    write: false,
    metafile: true,
  });
  const paths = Object.keys(metafile.inputs);
  assert.deepEqual(paths.filter((path) => /node\.ts$|src\/node\/|connect-node|smol-toml/.test(path)), []);
});

test("the examples are good TypeScript", () => {
  const folder = "node_modules/.cache/hodei-examples";
  mkdirSync(folder, { recursive: true });
  try {
    const readme = readFileSync("README.md", "utf8");
    const sources = ["client", "errors", "job", "jobs", "node", "node/config", "node/current", "spec", "web"].map((name) =>
      readFileSync(`src/${name}.ts`, "utf8").replace(/^ *\*\/? ?/gm, ""),
    );
    // What examples without imports of their own use.
    const given = `
      import * as all from "@hodei/client/node";
      declare global {
        var client: all.Client, job: all.Job, commands: string[][], output: HTMLElement;
        var Client: typeof all.Client, JobFailedError: typeof all.JobFailedError, HodeiError: typeof all.HodeiError;
        var resolveConfig: typeof all.resolveConfig, fetchPassword: () => Promise<string>;
      }`;
    writeFileSync(`${folder}/given.mts`, given);
    let count = 0;
    for (const text of [readme, ...sources]) {
      for (const [, code] of text.matchAll(/```ts\n(.*?)```/gs)) writeFileSync(`${folder}/example${count++}.mts`, `${code}export {};\n`);
    }
    assert.ok(count >= 15, `${count} examples`);
    const paths = Object.fromEntries(["node", "web", "api", "admin"].map((name) => [`@hodei/client/${name}`, [`../../../src/${name}.ts`]]));
    const options = { noEmit: true, noUnusedLocals: false, noUnusedParameters: false, paths };
    const config = { extends: "../../../tsconfig.json", compilerOptions: options, include: ["*.mts"] };
    writeFileSync(`${folder}/tsconfig.json`, JSON.stringify(config));
    const checked = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", folder], { encoding: "utf8" });
    assert.equal(checked.stdout, "");
    assert.equal(checked.status, 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
