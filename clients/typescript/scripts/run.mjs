// Bundles TypeScript of this package and runs it with Node: run.mjs FILE..., or run.mjs --test FILE... for node:test.
import { mkdirSync, rmSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
const test = process.argv[2] === "--test";
const files = process.argv.slice(test ? 3 : 2);
const out = `node_modules/.cache/hodei/${process.pid}`;
mkdirSync(out, { recursive: true });
let status = 1;
try {
  await build({
    entryPoints: files,
    outdir: out,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
    sourcemap: "inline",
  });
  const programs = files.map((file) => `${out}/${basename(file, ".ts")}.mjs`);
  const args = ["--enable-source-maps", ...(test ? ["--test"] : []), ...programs];
  status = spawnSync(process.execPath, args, { stdio: "inherit" }).status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
process.exit(status);
