// Measures against the server that the environment or the settings name: node scripts/run.mjs test/bench.ts
import { Client } from "../src/node.js";

const JOBS = 10_000;
const LINES = 1_000_000;

const client = new Client();
let start = performance.now();
const jobs = await client.submitMany(Array.from({ length: JOBS }, (_, i) => ["true", String(i)]));
const submitted = performance.now() - start;
console.log(`submitMany: ${jobs.length} jobs in ${submitted.toFixed(0)} ms, ${Math.round((JOBS / submitted) * 1000)} jobs/s`);
for await (const job of client.asCompleted(jobs)) if (job.state !== "SUCCEEDED") throw new Error(`${job.id} is ${job.state}`);

start = performance.now();
let count = 0;
for await (const job of client.map(Array.from({ length: JOBS }, (_, i) => ["true", String(i)]))) {
  if (job.state === "SUCCEEDED") count++;
}
const mapped = performance.now() - start;
console.log(`map: ${count} jobs have run in ${mapped.toFixed(0)} ms, ${Math.round((count / mapped) * 1000)} jobs/s`);

const long = await client.run(["seq", "1", String(LINES)]);
await long.logs().toArray(); // all of it has arrived
for (let round = 0; round < 3; round++) {
  start = performance.now();
  let lines = 0;
  for await (const line of long.logs()) if (line.text === String(++lines)) continue;
  const read = performance.now() - start;
  if (lines !== LINES) throw new Error(`${lines} lines`);
  console.log(`logs: ${lines} lines in ${read.toFixed(0)} ms, ${Math.round((lines / read) * 1000)} lines/s`);
}
const live = await client.submit(["seq", "1", String(LINES)]);
start = performance.now();
let lines = 0;
for await (const _ of live.logs({ follow: true })) lines++;
const followed = performance.now() - start;
console.log(`follow: ${lines} lines as they were written, in ${followed.toFixed(0)} ms, ${Math.round((lines / followed) * 1000)} lines/s`);
await client.close();
