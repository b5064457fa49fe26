import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { create } from "@bufbuild/protobuf";

import { ErrorInfoSchema, JobState, LogState, LogStream, RetryInfoSchema } from "../src/api.js";
import type { Job } from "../src/common.js";
import * as errors from "../src/errors.js";
import { fakeClient, unavailable } from "./fake.js";

const job = { id: "job_1", state: JobState.RUNNING, revision: 2, spec: { name: "n" } };
const ended = { ...job, state: JobState.SUCCEEDED, revision: 3 };

test("reads and submits are repeated until the server is back, with the same request id", async () => {
  const ids = new Set<string>();
  let calls = 0;
  const client = fakeClient({
    jobs: {
      submitJob(request) {
        ids.add(request.requestId);
        if (++calls < 3) throw unavailable();
        return { job };
      },
    },
  });
  assert.equal((await client.submit(["true"])).state, "RUNNING");
  assert.equal(calls, 3);
  assert.equal(ids.size, 1);
  assert.match([...ids][0]!, /^[0-9a-f]{32}$/);
});

test("an address that has never answered is not tried again", async () => {
  let calls = 0;
  const transport = () =>
    ({
      unary() {
        calls++;
        throw new ConnectError("broken", Code.Unavailable);
      },
    }) as never;
  const client = fakeClient({}, { reached: () => false, transport, diagnose: () => ({ kind: "broken", message: "nobody" }) });
  await assert.rejects(client.jobs.get("x"), { name: "UnavailableError", message: "nobody" });
  assert.equal(calls, 1);
});

test("an aborted signal rejects with its reason, at once", async () => {
  const client = fakeClient({
    jobs: {
      getJob: () => Promise.reject(unavailable()),
      watchJobs: async function* (_, context) {
        await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
        yield {};
      },
    },
  });
  const reason = new Error("enough");
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 100);
  const { signal } = controller;
  const watching = (async () => {
    for await (const _ of client.jobs.watch({ signal }));
  })();
  const results = await Promise.allSettled([client.jobs.get("x", { signal }), watching]);
  for (const result of results) assert.equal(result.status === "rejected" && result.reason, reason);
  await assert.rejects(client.jobs.get("x", { signal }), reason);
});

test("a call has the time that the client gives it", async () => {
  const client = fakeClient({ jobs: { getJob: () => Promise.reject(unavailable()) } }, { timeoutMs: 200 });
  await assert.rejects(client.jobs.get("x"), { name: "WaitTimeoutError", message: /200 ms.*the server stops/ });
});

test("closing ends what is under way, and what comes after", async () => {
  const client = fakeClient({ jobs: { getJob: () => Promise.reject(unavailable()) } });
  const call = client.jobs.get("x");
  setTimeout(() => void client.close(), 20);
  await assert.rejects(call, { code: "canceled", message: "the client was closed" });
  await assert.rejects(client.jobs.get("x"), { code: "canceled" });
});

for (const [code, name] of [
  [Code.NotFound, "NotFoundError"],
  [Code.InvalidArgument, "InvalidArgumentError"],
  [Code.FailedPrecondition, "FailedPreconditionError"],
  [Code.PermissionDenied, "PermissionDeniedError"],
  [Code.Unauthenticated, "UnauthenticatedError"],
  [Code.ResourceExhausted, "QuotaExceededError"],
  [Code.Unimplemented, "VersionSkewError"],
  [Code.DeadlineExceeded, "WaitTimeoutError"],
  [Code.DataLoss, "HodeiError"],
] as const) {
  test(`the code ${Code[code]} is a ${name}`, async () => {
    const details = [
      { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason: "SOME_REASON", domain: "hodei" }) },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 2n, nanos: 500_000_000 } } },
    ];
    const client = fakeClient({ jobs: { getJob: () => Promise.reject(new ConnectError("wrong", code, undefined, details)) } });
    await assert.rejects(client.jobs.get("x"), (error) => {
      assert.ok(error instanceof errors.HodeiError && error instanceof Error);
      assert.deepEqual([error.name, error.message, error.reason, error.retryAfter], [name, "wrong", "SOME_REASON", 2500]);
      assert.equal(error.constructor, errors[name]);
      assert.match(error.stack!, new RegExp(`^${name}: wrong|^Error: wrong`));
      return true;
    });
  });
}

test("a reason VERSION_SKEW is a VersionSkewError whatever the code", async () => {
  const details = [{ desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason: "VERSION_SKEW" }) }];
  const error = new ConnectError("old", Code.FailedPrecondition, undefined, details);
  const client = fakeClient({ jobs: { getJob: () => Promise.reject(error) } });
  await assert.rejects(client.jobs.get("x"), { name: "VersionSkewError", code: "failed_precondition" });
});

test("one exchange of a token serves all calls, and a refused one is made once more", async () => {
  let exchanges = 0;
  let good = "jwt-1";
  const refused: string[] = [];
  const authorization = (context: { requestHeader: Headers }) => {
    const token = context.requestHeader.get("Authorization")!;
    if (token !== `Bearer ${good}`) {
      refused.push(token);
      throw new ConnectError("the token is not good", Code.Unauthenticated);
    }
    assert.match(context.requestHeader.get("Hodei-Client")!, /^typescript\/\d/);
  };
  const client = fakeClient(
    {
      auth: {
        async exchangeToken({ proof }, context) {
          assert.equal(proof.value, "hodei_secret");
          assert.equal(context.requestHeader.get("Authorization"), null);
          await new Promise((resolve) => setTimeout(resolve, 20));
          return { accessToken: `jwt-${++exchanges}`, expireTime: { seconds: BigInt(Math.floor(Date.now() / 1000) + 900) } };
        },
      },
      jobs: {
        getJob(_, context) {
          authorization(context);
          return { job };
        },
        async *watchJobs(_, context) {
          authorization(context);
          yield { jobs: [ended] };
        },
      },
    },
    { secret: "hodei_secret" },
  );
  await Promise.all(Array.from({ length: 50 }, () => client.jobs.get("x")));
  assert.equal(exchanges, 1);
  good = "jwt-2";
  await client.jobs.get("x");
  assert.deepEqual([exchanges, refused], [2, ["Bearer jwt-1"]]);
  good = "jwt-3";
  for await (const one of client.jobs.watch()) {
    assert.ok(one.done);
    break;
  }
  assert.deepEqual([exchanges, refused.length], [3, 2]);
  good = "another";
  await assert.rejects(client.jobs.get("x"), { name: "UnauthenticatedError" });
  assert.deepEqual([exchanges, refused.length], [4, 4]);
});

test("an access token is used as it is, and a function is asked again for another", async () => {
  let tokens = ["eyJ-1", "eyJ-2"];
  const seen: string[] = [];
  const jobs = {
    getJob(_: unknown, context: { requestHeader: Headers }) {
      seen.push(context.requestHeader.get("Authorization")!);
      if (seen.length === 2) throw new ConnectError("expired", Code.Unauthenticated);
      return { job };
    },
  };
  const client = fakeClient({ jobs }, { secret: () => Promise.resolve(tokens.shift()!) });
  await client.jobs.get("x");
  await client.jobs.get("x");
  assert.deepEqual(seen, ["Bearer eyJ-1", "Bearer eyJ-1", "Bearer eyJ-2"]);
  seen.length = 0;
  tokens = [];
  await fakeClient({ jobs }, { secret: "eyJ-fixed" }).jobs.get("x");
  assert.deepEqual(seen, ["Bearer eyJ-fixed"]);
});

test("a log goes on at the cursor of the last message that arrived", async () => {
  const cursors: string[] = [];
  const data = (text: string) => new TextEncoder().encode(text);
  const text = "one\ntwo\nthree\n";
  const client = fakeClient({
    logs: {
      async *tailLogs(request) {
        const from = Number(request.cursor?.offset || 0);
        cursors.push(`${from} ${request.begin.case}`);
        const chunk = { attempt: 1, step: "s", stream: LogStream.STDOUT, data: data(text.slice(from, from + 5)), offset: String(from) };
        const end = Math.min(from + 5, text.length);
        const cursor = { attempt: 1, offset: String(end) };
        const completeness = end === text.length ? { state: LogState.COMPLETE } : {};
        yield { chunks: [chunk], cursor, completeness };
        if (end < text.length) throw unavailable();
      },
    },
  });
  const log = client.jobs.logs("job_1", { follow: true, tail: 3 });
  const lines = await log.toArray();
  assert.deepEqual(lines.map(String), ["one", "two", "three"]);
  assert.deepEqual(cursors, ["0 tailLines", "5 undefined", "10 undefined"]);
  assert.equal(log.completeness?.state, "COMPLETE");
});

test("a log that is not what was written is an error", async () => {
  const client = fakeClient({
    logs: {
      async *tailLogs() {
        const chunks = [{ attempt: 1, step: "s", stream: LogStream.STDOUT, data: new Uint8Array([65, 10]), offset: "0" }];
        const streams = [{ step: "s", stream: LogStream.STDOUT, bytes: "3", sha256: new Uint8Array(32) }];
        yield { chunks, cursor: {}, completeness: { state: LogState.COMPLETE, streams } };
      },
    },
  });
  await assert.rejects(client.jobs.logs("job_1").toArray(), { code: "data_loss", message: /damaged/ });
});

test("leaving a loop ends its stream on the server", async () => {
  let open = 0;
  const stream = async function* (_: unknown, context: { signal: AbortSignal }) {
    open++;
    context.signal.addEventListener("abort", () => open--);
    yield { jobs: [job] };
    await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
  };
  const client = fakeClient({ jobs: { watchJobs: stream } });
  for await (const one of client.jobs.watch()) {
    assert.equal(open, 1);
    assert.equal(one.id, "job_1");
    break;
  }
  const waiting = client.jobs.watch()[Symbol.asyncIterator]();
  await waiting.next();
  const pending = waiting.next();
  pending.catch(() => {});
  await waiting.return!();
  await assert.rejects(pending);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(open, 0);
});

test("a watch goes on at its resume token, and starts over when that is too old", async () => {
  const tokens: string[] = [];
  const client = fakeClient({
    jobs: {
      async *watchJobs({ resumeToken }) {
        tokens.push(resumeToken);
        if (tokens.length === 3) throw new ConnectError("too old", Code.OutOfRange);
        yield { jobs: [{ ...job, revision: tokens.length }], resumeToken: `t${tokens.length}` };
        if (tokens.length < 5) throw unavailable();
      },
    },
  });
  const seen: number[] = [];
  for await (const one of client.jobs.watch()) if (seen.push(one.revision) === 4) break;
  assert.deepEqual(tokens, ["", "t1", "t2", "", "t4"]);
  assert.deepEqual(seen, [1, 2, 4, 5]);
});

test("many waits share few streams, also when they are asked for one after the other", async () => {
  let open = 0;
  let most = 0;
  const done = new Set<string>();
  let wake = () => {};
  let changed = new Promise<void>((resolve) => (wake = resolve));
  const client = fakeClient({
    jobs: {
      submitJob: ({ spec }) => ({ job: { ...job, id: spec!.name } }),
      getJob: ({ id }) => ({ job: { ...job, id } }),
      async *watchJobs({ filter }, context) {
        most = Math.max(most, ++open);
        context.signal.addEventListener("abort", () => open--);
        const left = new Set(filter!.ids);
        yield { jobs: filter!.states.length ? [] : filter!.ids.map((id) => ({ ...job, id })), initialComplete: true };
        while (!context.signal.aborted) {
          const now = [...left].filter((id) => done.has(id));
          for (const id of now) left.delete(id);
          if (now.length) yield { jobs: now.map((id) => ({ ...ended, id })), initialComplete: true };
          await Promise.race([changed, new Promise((resolve) => context.signal.addEventListener("abort", resolve))]);
        }
      },
    },
  });
  const waits: Promise<Job>[] = [];
  for (let i = 0; i < 300; i++) {
    waits.push(client.run(["true"], { name: `job_${i}` }));
    if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
  for (let i = 0; i < 300; i++) done.add(`job_${i}`);
  for (let i = 0; i < 20; i++) {
    wake();
    changed = new Promise((resolve) => (wake = resolve));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const jobs = await Promise.all(waits);
  assert.ok(jobs.every((one) => one.state === "SUCCEEDED"));
  assert.ok(most <= 6, `${most} streams were open`);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(open, 0);
});

test("waiting for a job that is no longer there is an error", async (t) => {
  let there = true;
  const client = fakeClient({
    jobs: {
      getJob() {
        if (!there) throw new ConnectError("no such job", Code.NotFound);
        return { job };
      },
      async *watchJobs() {
        yield { initialComplete: true };
        await new Promise(() => {});
      },
    },
  });
  const old = await client.jobs.get("job_1");
  there = false;
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() + 3_600_000 });
  await assert.rejects(old.wait(), { name: "NotFoundError" });
});

test("a batch tells which of its jobs were refused", async () => {
  const client = fakeClient({
    jobs: {
      submitJobs: ({ requests }) => ({
        results: requests.map((_, i) =>
          i === 1 ? { problem: { code: "invalid_argument", message: "no step" } } : { jobId: `job_${i}` },
        ),
      }),
    },
  });
  await assert.rejects(client.submitMany([["a"], [], ["c"]]), (error) => {
    assert.ok(error instanceof errors.BatchError);
    assert.deepEqual(error.jobs.map((one) => one?.id), ["job_0", undefined, "job_2"]);
    assert.equal(error.refused[0]?.index, 1);
    assert.ok(error.refused[0]?.error instanceof errors.InvalidArgumentError);
    return true;
  });
});

test("batches are small enough for the server", async () => {
  const sizes: number[] = [];
  const client = fakeClient({
    jobs: {
      submitJobs({ requests }) {
        sizes.push(requests.length);
        return { results: requests.map((_, i) => ({ jobId: `job_${sizes.length}_${i}` })) };
      },
    },
  });
  const jobs = await client.submitMany(Array.from({ length: 2500 }, () => ["true"]));
  assert.deepEqual([jobs.length, sizes], [2500, [1000, 1000, 500]]);
  sizes.length = 0;
  await client.submitMany(Array.from({ length: 6 }, () => ["echo", "x".repeat(400_000)]));
  assert.deepEqual(sizes, [2, 2, 2]);
});
