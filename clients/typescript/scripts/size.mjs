// Measures what the client adds to a page that submits a job and follows its output, and fails when that is too much.
import { gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const LIMIT = 45_000;

const { outputFiles, metafile } = await build({
  stdin: {
    contents: `
      import { Client } from "./src/web.js";
      const client = new Client({ token: "eyJ" });
      const job = await client.submit(["make", "test"]);
      for await (const line of job.logs({ follow: true })) document.body.append(line.text + "\\n");
    `,
    resolveDir: fileURLToPath(new URL("..", import.meta.url)),
    loader: "ts",
  },
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  write: false,
  metafile: true,
});
const { contents } = outputFiles[0];
const size = gzipSync(contents, { level: 9 }).length;
if (process.argv.includes("--what")) {
  const [output] = Object.values(metafile.outputs);
  const inputs = Object.entries(output.inputs).sort((a, b) => b[1].bytesInOutput - a[1].bytesInOutput);
  for (const [path, { bytesInOutput }] of inputs) console.log(`${String(bytesInOutput).padStart(7)} ${path}`);
}
const kb = (bytes) => (bytes / 1000).toFixed(1);
console.log(`a page with the client has ${kb(size)} KB gzip (${kb(contents.length)} KB minified); the limit is ${kb(LIMIT)} KB`);
if (size > LIMIT) process.exit(1);
