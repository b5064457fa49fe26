import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { ConfigurationError, current, HodeiError } from "../src/node.js";

const variables = {
  HODEI_JOB_ID: "job_1", HODEI_JOB_NAME: "n", HODEI_NAMESPACE: "web", HODEI_QUEUE: "q", HODEI_ATTEMPT: "2", HODEI_STEP: "build",
  HODEI_STEP_INDEX: "1",
};

test("a process of a job knows which", () => {
  const { jobId, jobName, namespace, queue, attempt, step, stepIndex } = current(variables);
  assert.deepEqual([jobId, jobName, namespace, queue, attempt, step, stepIndex], ["job_1", "n", "web", "q", 2, "build", 1]);
});

test("outside of a job, and without a socket, it says so", async () => {
  assert.throws(() => current({}), (error) => error instanceof ConfigurationError && /no job/.test(error.message));
  await assert.rejects(current(variables).mask("x"), /HODEI_AGENT_SOCKET/);
});

test("the agent is asked in JSON", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hodei-agent-"));
  const path = join(folder, "agent.sock");
  const asked: unknown[] = [];
  const answers = [{ warnings: ["short"] }, {}, { error: "too much" }];
  const server = createServer((socket) => {
    socket.on("data", (data) => {
      asked.push(JSON.parse(String(data)));
      const answer = JSON.stringify(answers.shift());
      socket.write(answer.slice(0, 3));
      setImmediate(() => socket.end(answer.slice(3)));
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  const job = current({ ...variables, HODEI_AGENT_SOCKET: path });
  assert.deepEqual(await job.mask("geheim", "password"), ["short"]);
  await job.progress(0.4, "on the way");
  await assert.rejects(job.mask(new Uint8Array([1, 2])), (error) => error instanceof HodeiError && /too much/.test(error.message));
  assert.deepEqual(asked, [
    { mask: { name: "password", value: "Z2VoZWlt" } },
    { progress: { fraction: 0.4, message: "on the way" } },
    { mask: { name: "", value: "AQI=" } },
  ]);
  await assert.rejects(current({ ...variables, HODEI_AGENT_SOCKET: `${path}.not` }).progress(1), /was not reached/);
});
