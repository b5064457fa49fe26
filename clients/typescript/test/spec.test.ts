import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";

import { InvalidArgumentError } from "../src/errors.js";
import { ConcurrencyPolicy, ConstraintOperator as Op, JobSpecSchema } from "../src/api.js";
import { constraint, memoryMib, specOf } from "../src/spec.js";

const spec = (...args: Parameters<typeof specOf>) => create(JobSpecSchema, specOf(...args));

test("a list is a program with its arguments, and a text is a script", () => {
  assert.deepEqual(spec(["echo", "a b"], {}, "").steps[0]?.action, {
    case: "command",
    value: { $typeName: "hodei.v1.Command", argv: ["echo", "a b"] },
  });
  const action = spec("make && make test", {}, "").steps[0]?.action;
  assert.equal(action?.case === "script" && action.value.text, "make && make test");
});

test("options become fields", () => {
  const made = spec(
    { steps: [{ name: "a", run: ["true"], env: { A: "2" }, timeout: 1500, secrets: ["B"], terminal: true }, { run: "b", cwd: "/b" }] },
    {
      name: "n", labels: { l: "v" }, env: { A: "1" }, cwd: "/w", cpus: 1.5, memory: "2Gi", extras: { gpu: 1 }, timeout: 90_250,
      maxAttempts: 3, backoff: { initial: 1 }, priority: 5, secrets: [{ name: "T", file: true }], constraints: ["os=linux"],
      affinities: [{ constraint: "ssd", weight: 50 }], runAfter: new Date(1500), spread: "zone", tolerations: ["gpu"],
      concurrency: { key: "k", policy: "LATEST" }, gang: { name: "g", size: 2 }, requires: ["memory-limit"],
    },
    "web",
  );
  assert.equal(made.namespace, "web");
  assert.equal(made.resources?.milliCpu, 1500);
  assert.equal(made.resources?.memoryMib, 2048);
  assert.deepEqual([made.timeout?.seconds, made.timeout?.nanos], [90n, 250_000_000]);
  assert.deepEqual([made.runAfter?.seconds, made.runAfter?.nanos], [1n, 500_000_000]);
  assert.deepEqual([made.backoff?.initial?.seconds, made.backoff?.initial?.nanos], [0n, 1_000_000]);
  assert.equal(made.concurrency?.policy, ConcurrencyPolicy.LATEST);
  assert.equal(made.affinities[0]?.constraint?.operator, Op.EXISTS);
  const [a, b] = made.steps;
  assert.deepEqual([a?.workingDir, b?.workingDir], ["/w", "/b"]);
  assert.deepEqual(a?.secrets.map((s) => [s.name, s.file]), [["T", true], ["B", false]]);
  assert.ok(a?.terminal && !b?.terminal);
  assert.equal(spec(["true"], { namespace: "own" }, "web").namespace, "own");
  assert.equal(spec(["true"], {}, "").resources, undefined);
});

test("what is no text is refused where types do not", () => {
  assert.throws(() => spec(["true"], { env: { PORT: 8080 as unknown as string } }, ""), {
    name: "InvalidArgumentError",
    code: "invalid_argument",
    message: "env.PORT must be a string, and is 8080",
  });
  assert.throws(() => spec(["true"], { timeout: NaN }, ""), InvalidArgumentError);
  assert.throws(() => spec(["true"], { runAfter: new Date(NaN) }, ""), InvalidArgumentError);
});

test("amounts of memory", () => {
  for (const [text, mib] of [
    ["512Mi", 512], ["2Gi", 2048], ["2GiB", 2048], ["1.5G", 1431], ["1", 1], [1 << 20, 1], ["1048577", 2], ["1Ti", 1 << 20], ["0", 0],
  ] as const) {
    assert.equal(memoryMib(text), mib, String(text));
  }
  for (const text of ["", "lots", "-1", "2gi", "2 Gi", "Gi", "1e9", "99999999Ti", "i"]) {
    assert.throws(() => memoryMib(text), { message: `"${text}" is not an amount of memory like 512Mi or 2Gi` });
  }
});

test("constraints", () => {
  for (const [text, label, operator, values] of [
    ["os=linux", "os", Op.IN, ["linux"]],
    ["zone=a|b", "zone", Op.IN, ["a", "b"]],
    ["arch!=arm64", "arch", Op.NOT_IN, ["arm64"]],
    ["gpu", "gpu", Op.EXISTS, undefined],
    ["!gpu", "gpu", Op.NOT_EXISTS, undefined],
    ["mem>16", "mem", Op.GREATER, ["16"]],
    ["mem<64", "mem", Op.LESS, ["64"]],
    ["cuda~>=12.2, <13", "cuda", Op.VERSION, [">=12.2, <13"]],
  ] as const) {
    const got = constraint(text) as { label: string; operator: Op; values?: string[] };
    assert.deepEqual([got.label, got.operator, got.values], [label, operator, values], text);
  }
  for (const text of ["", "!", "=x", "!a=b", "a>=3", "a<=3", "a==b"]) assert.throws(() => constraint(text), InvalidArgumentError, text);
});
