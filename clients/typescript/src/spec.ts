import type { MessageInitShape } from "@bufbuild/protobuf";

import { InvalidArgumentError } from "./errors.js";
import {
  ConcurrencyPolicy,
  ConstraintOperator,
  type ConstraintSchema,
  type JobSpecSchema,
  type StepSchema,
} from "./gen/hodei/v1/job_pb.js";

/**
 * What a job runs: a program and its arguments (started without a shell), a script for `sh -e -c`, or several steps that run one after
 * the other on one worker.
 *
 * @example
 * ```ts
 * await client.submit(["echo", "two words"]);
 * await client.submit("make && make test");
 * await client.submit({ steps: [{ name: "build", run: "make" }, { name: "test", run: ["make", "test"] }] });
 * ```
 */
export type Command = string | readonly string[] | { readonly steps: readonly Step[] };

/** A step of a job. */
export interface Step {
  /** Its name, unique in the job; "step-1" and so on when not set. */
  name?: string | undefined;
  /** A program and its arguments, or a script. */
  run: string | readonly string[];
  /** The shell of a script and its options; `["sh", "-e", "-c"]` when not set. */
  shell?: readonly string[] | undefined;
  /** Variables of this step, on top of the job's. */
  env?: Readonly<Record<string, string>> | undefined;
  /** The folder on the worker in which the step starts; the job's, or one made for the attempt, when not set. */
  cwd?: string | undefined;
  /** How long the step may run, in milliseconds. */
  timeout?: number | undefined;
  /** The time between SIGTERM and SIGKILL when the step is stopped, in milliseconds; 10 seconds when not set. */
  grace?: number | undefined;
  /** Secrets of the namespace that the step gets, besides the job's. */
  secrets?: readonly (string | SecretRef)[] | undefined;
  /** Run on a terminal of this size: the output is one stream, as a person would see it. */
  terminal?: boolean | { columns?: number; rows?: number } | undefined;
}

/** A secret, by its name. A string alone stands for its name. */
export interface SecretRef {
  name: string;
  /** The variable that has the value, or the path of the file; the secret's name when not set. */
  env?: string | undefined;
  /** Give the value in a file, which is gone when the attempt has ended. */
  file?: boolean | undefined;
}

/** A condition on a label of the worker. */
export interface Constraint {
  label: string;
  operator: "IN" | "NOT_IN" | "EXISTS" | "NOT_EXISTS" | "LESS" | "GREATER" | "VERSION";
  values?: readonly string[] | undefined;
}

/** What a job is besides its command. Times are in milliseconds. */
export interface JobOptions {
  /** A name for people; need not be unique. */
  name?: string | undefined;
  /** The namespace; the client's when not set. */
  namespace?: string | undefined;
  /** The queue; the default queue of the namespace when not set. */
  queue?: string | undefined;
  /** Labels, for filters and reports. */
  labels?: Readonly<Record<string, string>> | undefined;
  /** Environment of every step. */
  env?: Readonly<Record<string, string>> | undefined;
  /** The folder on the worker in which steps start; one made for the attempt when not set. */
  cwd?: string | undefined;
  /** CPUs to reserve, for example 1.5. */
  cpus?: number | undefined;
  /** Memory to reserve: a number of bytes, or a text like "512Mi" or "2Gi". */
  memory?: string | number | undefined;
  /** Named extras to reserve, for example `{ gpu: 2 }`. */
  extras?: Readonly<Record<string, number>> | undefined;
  /** How long one attempt may run; 24 hours when not set. */
  timeout?: number | undefined;
  /** How often the job may be started in all; 1 when not set. */
  maxAttempts?: number | undefined;
  /** The wait before the next attempt: initial * factor^(attempt-1), at most max. */
  backoff?: { initial?: number; max?: number; factor?: number } | undefined;
  /** From -1000 to 1000; jobs with a higher priority start first. */
  priority?: number | undefined;
  /** Secrets of the namespace that every step gets. */
  secrets?: readonly (string | SecretRef)[] | undefined;
  /**
   * Conditions on the labels of the worker; all must hold. A text is label=value, label=a|b, label!=value, label, !label, label<number,
   * label>number, or label~range for versions.
   */
  constraints?: readonly (string | Constraint)[] | undefined;
  /** Workers that the job likes (weight up to 100) or dislikes (down to -100). */
  affinities?: readonly { constraint: string | Constraint; weight: number }[] | undefined;
  /** The job does not start before this time. */
  runAfter?: Date | undefined;
  /** A label of workers: jobs of this name go where the fewest of them run. */
  spread?: string | undefined;
  /** A label of workers: no two jobs of this name run at the same value of it. */
  apart?: string | undefined;
  /** Taints of workers that do not keep the job away. */
  tolerations?: readonly string[] | undefined;
  /** What the worker's agent must be able to do, for example "memory-limit". */
  requires?: readonly string[] | undefined;
  /** How many jobs with the same key run at the same time, and what becomes of older ones. A text is a key of which one runs. */
  concurrency?: string | { key: string; limit?: number; policy?: "QUEUE" | "LATEST" | "CANCEL_RUNNING" } | undefined;
  /** The jobs that start together with this one. */
  gang?: { name: string; size: number } | undefined;
}

/** Makes the spec that is sent. Whether its values are good the server says. */
export function specOf(command: Command, o: JobOptions, namespace: string): MessageInitShape<typeof JobSpecSchema> {
  const steps: readonly Step[] =
    typeof command === "object" && "steps" in command ? command.steps : [{ run: command as string | string[] }];
  return {
    ...given({
      name: o.name,
      namespace: o.namespace ?? namespace,
      queue: o.queue,
      labels: texts("labels", o.labels),
      env: texts("env", o.env),
      priority: o.priority,
      timeout: duration(o.timeout),
      maxAttempts: o.maxAttempts,
      spread: o.spread,
      apart: o.apart,
      tolerations: o.tolerations && [...o.tolerations],
      requires: o.requires && [...o.requires],
      gang: o.gang,
      runAfter: o.runAfter && timestamp(o.runAfter),
      constraints: o.constraints?.map(constraint),
      affinities: o.affinities?.map((a) => ({ constraint: constraint(a.constraint), weight: a.weight })),
      concurrency:
        typeof o.concurrency === "string"
          ? { key: o.concurrency }
          : o.concurrency &&
            given({
              key: o.concurrency.key,
              limit: o.concurrency.limit,
              policy: o.concurrency.policy && ConcurrencyPolicy[o.concurrency.policy],
            }),
      backoff:
        o.backoff &&
        given({ initial: duration(o.backoff.initial), max: duration(o.backoff.max), factor: o.backoff.factor }),
      resources:
        o.cpus === undefined && o.memory === undefined && !o.extras
          ? undefined
          : given({
              milliCpu: o.cpus === undefined ? undefined : Math.round(o.cpus * 1000),
              memoryMib: o.memory === undefined ? undefined : memoryMib(o.memory),
              extras: o.extras,
            }),
    }),
    steps: steps.map((step) => stepOf(step, o)),
  };
}

function stepOf(step: Step, o: JobOptions): MessageInitShape<typeof StepSchema> {
  const { run, terminal } = step;
  return {
    ...given({
      name: step.name,
      env: texts("env", step.env),
      workingDir: step.cwd ?? o.cwd,
      timeout: duration(step.timeout),
      grace: duration(step.grace),
      terminal: terminal === true ? {} : terminal || undefined,
    }),
    secrets: [...(o.secrets ?? []), ...(step.secrets ?? [])].map((secret) =>
      typeof secret === "string" ? { name: secret } : given(secret),
    ),
    action:
      typeof run === "string"
        ? { case: "script", value: { text: run, shell: [...(step.shell ?? [])] } }
        : { case: "command", value: { argv: [...run] } },
  };
}

/** Leaves out what is undefined: a message takes only fields that have a value. */
function given<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}

/** Refuses what is no text before it fails to be encoded: `{PORT: 8080}` is an easy mistake without types. */
function texts(where: string, map: Readonly<Record<string, string>> | undefined): Record<string, string> | undefined {
  for (const [key, value] of Object.entries(map ?? {})) {
    if (typeof value !== "string") throw invalid(`${where}.${key} must be a string, and is ${JSON.stringify(value)}`);
  }
  return map;
}

function duration(ms: number | undefined): { seconds: bigint; nanos: number } | undefined {
  if (ms === undefined) return undefined;
  if (!Number.isFinite(ms)) throw invalid(`${ms} is not a number of milliseconds`);
  const seconds = Math.trunc(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

export function timestamp(date: Date): { seconds: bigint; nanos: number } {
  const ms = date.getTime();
  if (Number.isNaN(ms)) throw invalid("the date is not valid");
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: (ms - seconds * 1000) * 1e6 };
}

const FACTORS: { [suffix: string]: number } = {
  "": 1, K: 1e3, M: 1e6, G: 1e9, T: 1e12, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40,
};

/** Reads an amount of memory like 512Mi, 2Gi, 1.5G or a number of bytes, in mebibytes, rounded up. */
export function memoryMib(amount: string | number): number {
  const [, number, suffix] = /^(\d+\.?\d*)([KMGT]?i?)B?$/.exec(String(amount)) ?? [];
  const factor = FACTORS[suffix ?? "?"];
  const mib = Math.ceil((Number(number) * (factor ?? NaN)) / 2 ** 20);
  if (!(mib <= 0x7fffffff)) throw invalid(`"${amount}" is not an amount of memory like 512Mi or 2Gi`);
  return mib;
}

/** Reads a condition on a worker's label. Whether the label and the values are good the server says. */
export function constraint(text: string | Constraint): MessageInitShape<typeof ConstraintSchema> {
  if (typeof text !== "string") {
    return { label: text.label, operator: ConstraintOperator[text.operator], values: [...(text.values ?? [])] };
  }
  const [, not, label, sign, value = ""] = /^(!?)([^=!<>~]+)(?:(!=|[=<>~])(.*))?$/s.exec(text) ?? [];
  if (!label || (not && sign)) {
    throw invalid(
      `"${text}" is no constraint; write label=value, label=a|b, label!=value, label, !label, label<number, label>number, ` +
        "or label~range for versions",
    );
  }
  if (sign !== "~" && value.startsWith("=")) {
    throw invalid(
      `constraint "${text}": there is no ${sign}=; use = and != for texts, < and > for numbers, and ~ for versions`,
    );
  }
  switch (sign) {
    case undefined:
      return { label, operator: not ? ConstraintOperator.NOT_EXISTS : ConstraintOperator.EXISTS };
    case "=":
      return { label, operator: ConstraintOperator.IN, values: value.split("|") };
    case "!=":
      return { label, operator: ConstraintOperator.NOT_IN, values: value.split("|") };
  }
  const operator =
    sign === "<" ? ConstraintOperator.LESS : sign === ">" ? ConstraintOperator.GREATER : ConstraintOperator.VERSION;
  return { label, operator, values: [value.trim()] };
}

function invalid(message: string): InvalidArgumentError {
  return new InvalidArgumentError(message, { code: "invalid_argument" });
}
