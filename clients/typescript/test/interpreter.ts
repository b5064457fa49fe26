// Runs the cases that all clients are run through. It knows nothing of Node or of browsers.
import { JobService } from "../src/api.js";
import type { BaseClient } from "../src/client.js";
import type { Job, JobOptions, LogChunk, LogLine, LogOptions, LogReader, Command } from "../src/common.js";

export interface Case {
  name: string;
  skip?: Record<string, string>;
  steps: Step[];
}

type Value = unknown;
type Fields = Record<string, Value>;

interface Step extends Fields {
  do: string;
  as?: string;
  client?: string;
  job?: string;
  expect?: Fields;
  error?: Fields;
  meanwhile?: Step[];
  after_ms?: number;
}

export interface Settings {
  cases: Case[];
  client: string;
  control: string;
  variables: Record<string, string>;
}

export interface Ground {
  settings: Settings;
  /** Makes a client from what a step says. */
  makeClient(options: Record<string, string>, environment: Record<string, string> | undefined): BaseClient;
}

export interface Report {
  case: string;
  ok?: boolean;
  message?: string;
  skipped?: string;
}

const CASE_LIMIT = 180_000;

/** Runs one case. */
export async function runCase(ground: Ground, one: Case): Promise<Report> {
  const skipped = one.skip?.[ground.settings.client];
  if (skipped) return { case: one.name, ok: true, skipped };
  const run = new Run(ground);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not over within ${CASE_LIMIT} ms, in ${run.at}`)), CASE_LIMIT);
  });
  try {
    await Promise.race([run.steps(one.steps), late]);
    return { case: one.name, ok: true };
  } catch (error) {
    return { case: one.name, ok: false, message: `${run.at}: ${error instanceof Error ? error.stack : error}` };
  } finally {
    clearTimeout(timer);
    await run.close();
  }
}

class Run {
  readonly #ground: Ground;
  readonly #results = new Map<string, Value>();
  readonly #clients: BaseClient[] = [];
  readonly #unique = `u${Math.random().toString(36).slice(2)}`;
  #default: BaseClient | undefined;
  at = "";

  constructor(ground: Ground) {
    this.#ground = ground;
  }

  async close(): Promise<void> {
    for (const client of this.#clients) await client.close();
  }

  async steps(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      this.at = `step ${steps.indexOf(step) + 1} (${step.do})`;
      await this.#step(step);
    }
  }

  async #step(raw: Step): Promise<void> {
    const { meanwhile, ...rest } = raw;
    const step = this.#fill(rest, raw.do === "map") as Step;
    let begin = () => {};
    let others: Promise<void> | undefined;
    if (meanwhile) {
      others = new Promise<void>((resolve) => {
        begin = resolve;
        if (step.after_ms !== undefined) setTimeout(resolve, step.after_ms);
      }).then(() => this.steps(meanwhile));
      others.catch(() => {});
    }
    let result: Value;
    let failure: unknown;
    try {
      result = await this.#do(step, step.after_ms === undefined ? begin : () => {});
      begin();
    } catch (error) {
      begin();
      if (!step.error) throw error;
      failure = error;
    }
    await others;
    if (step.error) {
      if (failure === undefined) throw new Error(`it has not failed, with ${JSON.stringify(result)}`);
      checkError(failure as Error & Fields, step.error);
    }
    if (step.as) this.#results.set(step.as, result);
    if (step.expect) check(describe(result), step.expect);
  }

  async #do(step: Step, started: () => void): Promise<Value> {
    // What a step takes is what the table says.
    const s = step as Step & Record<string, any>;
    const client = () => this.#client(step.client);
    switch (step.do) {
      case "client": {
        const made = this.#ground.makeClient((step["with"] ?? {}) as Record<string, string>, s["environment"]);
        this.#clients.push(made);
        return made;
      }
      case "close":
        await client().close();
        return undefined;
      case "submit":
        return await client().submit(commandOf(step), optionsOf(step));
      case "run":
        return await client().run(commandOf(step), optionsOf(step));
      case "get":
        return await client().jobs.get(s["id"]);
      case "wait": {
        const options = s["timeout_ms"] === undefined ? {} : { timeoutMs: s["timeout_ms"] };
        const job = this.#job(step);
        return await (typeof job === "string" ? client().jobs.wait(job, options) : job.wait(options));
      }
      case "cancel": {
        const { step: name, reason, force } = s;
        const options = { ...(name && { step: name }), ...(reason && { reason }), ...(force && { force }) };
        const job = this.#job(step);
        return await (typeof job === "string" ? client().jobs.cancel(job, options) : job.cancel(options));
      }
      case "explain": {
        const job = this.#job(step);
        return await (typeof job === "string" ? client().jobs.explain(job) : job.explain());
      }
      case "list": {
        const jobs: Job[] = [];
        for await (const job of client().jobs.list({
          ...(s["name"] && { name: s["name"] }),
          ...(s["labels"] && { labels: s["labels"] }),
          ...(s["states"] && { states: s["states"] }),
          ...(s["page_size"] && { pageSize: s["page_size"] }),
          ...(s["limit"] && { limit: s["limit"] }),
        })) {
          jobs.push(job);
        }
        return {
          count: jobs.length,
          unique: new Set(jobs.map((job) => job.id)).size === jobs.length,
          newest_first: jobs.every((job, i) => i === 0 || jobs[i - 1]!.created! >= job.created!),
        };
      }
      case "map":
        return await this.#map(client(), step);
      case "logs": {
        const job = this.#job(step);
        const options = logOptionsOf(step);
        const log: LogReader<LogLine> = typeof job === "string" ? client().jobs.logs(job, options) : job.logs(options);
        const lines: string[] = [];
        for await (const line of log) {
          started();
          lines.push(line.text);
          if (lines.length === s["take"]) break;
        }
        const n = s["numbered"] as number | undefined;
        return n === undefined
          ? { lines }
          : { numbered: lines.length === n && lines.every((line, i) => line === String(i + 1)), count: lines.length };
      }
      case "chunks": {
        const job = this.#job(step);
        const options = logOptionsOf(step);
        const log: LogReader<LogChunk> = typeof job === "string" ? client().jobs.chunks(job, options) : job.chunks(options);
        let bytes = "";
        for await (const chunk of log) bytes += String.fromCharCode(...chunk.data);
        return { base64: btoa(bytes) };
      }
      case "watch": {
        const job = this.#job(step) as Job;
        const states: string[] = [];
        for await (const change of client().jobs.watch({ ids: [job.id] })) {
          started();
          if (states.at(-1) !== change.state) states.push(change.state);
          if (change.done) break;
        }
        return { states };
      }
      case "control": {
        const { control } = this.#ground.settings;
        const restart = s["action"] === "restart";
        const response = await fetch(`${control}/${s["action"]}`, { method: restart ? "POST" : "GET" });
        if (!response.ok) throw new Error(`the control answers with ${response.status}`);
        const text = await response.text();
        return restart ? undefined : { connections: Number(text) };
      }
    }
    throw new Error(`there is no "${step.do}"`);
  }

  async #map(client: BaseClient, step: Step): Promise<Value> {
    const count = step["count"] as number;
    const command = step["command"] as string[];
    const commands = Array.from({ length: count }, (_, i) => command.map((word) => word.replace("${index}", String(i))));
    const ids: string[] = [];
    let succeeded = 0;
    const options = optionsOf(step);
    for await (const job of client.map(commands, options)) {
      ids.push(job.id);
      if (job.state === "SUCCEEDED") succeeded++;
    }
    const found = new Map<string, string>();
    const request = { filter: { name: options.name ?? "" }, pageSize: 1000, pageToken: "" };
    do {
      const page = await client.raw(JobService).listJobs(request);
      for (const job of page.jobs) {
        const action = job.spec?.steps[0]?.action;
        if (action?.case === "command") found.set(job.id, action.value.argv.join(" "));
      }
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
    return { count: ids.length, succeeded, ordered: ids.every((id, i) => found.get(id) === commands[i]!.join(" ")) };
  }

  #client(name: string | undefined): BaseClient {
    if (name) return this.#results.get(name) as BaseClient;
    if (!this.#default) this.#clients.push((this.#default = this.#ground.makeClient({}, undefined)));
    return this.#default;
  }

  #job(step: Step): Job | string {
    return (this.#results.get(step.job!) as Job | undefined) ?? step.job!;
  }

  /** Puts in the variables, the results so far, and the word of this case. */
  #fill(value: Value, keepIndex: boolean): Value {
    if (Array.isArray(value)) return value.map((item) => this.#fill(item, keepIndex));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.#fill(item, keepIndex)]));
    }
    if (typeof value !== "string") return value;
    const whole = /^\$\{(\w+)\.(\w+)\}$/.exec(value);
    if (whole) return (this.#results.get(whole[1]!) as Fields)[whole[2]!];
    return value.replace(/\$\{(\w+)(?:\.(\w+))?\}/g, (all, name: string, field?: string) => {
      if (name === "index" && keepIndex) return all;
      if (name === "unique") return this.#unique;
      if (field) return String((this.#results.get(name) as Fields)[field]);
      const variable = this.#ground.settings.variables[name];
      if (variable === undefined) throw new Error(`there is no variable ${name}`);
      return variable;
    });
  }
}

function commandOf(step: Step): Command {
  if (step["steps"]) {
    return { steps: (step["steps"] as { name: string; script: string }[]).map(({ name, script }) => ({ name, run: script })) };
  }
  return (step["script"] ?? step["command"]) as Command;
}

function optionsOf(step: Step): JobOptions {
  const { timeout_ms, max_attempts, backoff_ms, ...rest } = (step["options"] ?? {}) as Fields & JobOptions;
  return {
    ...(rest as JobOptions),
    ...(timeout_ms !== undefined && { timeout: timeout_ms as number }),
    ...(max_attempts !== undefined && { maxAttempts: max_attempts as number }),
    ...(backoff_ms !== undefined && { backoff: { initial: backoff_ms as number } }),
  };
}

function logOptionsOf(step: Step): LogOptions {
  const options: Fields = {};
  for (const name of ["follow", "stream", "step", "attempt", "tail"]) if (step[name] !== undefined) options[name] = step[name];
  return options as LogOptions;
}

/** A result as the table writes it. */
function describe(result: Value): Fields {
  const job = result as Job & Fields;
  if (typeof result !== "object" || result === null || !("pendingReason" in result)) return result as Fields;
  return {
    id: job.id,
    state: job.state,
    exit_code: job.exitCode,
    signal: job.signal,
    name: job.name,
    cause: job.cause?.message ?? "",
    attempt: job.attempt,
  };
}

function check(got: Fields, want: Fields): void {
  for (const [key, wanted] of Object.entries(want)) {
    const value = got[key];
    const contains = (wanted as Fields | null)?.["contains"];
    const ok =
      contains !== undefined
        ? Array.isArray(value)
          ? value.includes(contains)
          : String(value).includes(String(contains))
        : key === "cause"
          ? String(value).includes(String(wanted))
          : JSON.stringify(value) === JSON.stringify(wanted);
    if (!ok) throw new Error(`${key} is ${JSON.stringify(value)?.slice(0, 2000)}, and not ${JSON.stringify(wanted)}`);
  }
}

function checkError(error: Error & Fields, want: Fields): void {
  const name = String(want["type"]).replace(/(Error)?$/, "Error");
  if (error.name !== name) throw new Error(`it failed with ${error.stack}, and not with a ${name}`);
  const got = { contains: error.message, exit_code: error["exitCode"], log_tail: error["logTail"] };
  for (const [key, wanted] of Object.entries(want)) {
    if (key === "type") continue;
    if (key === "contains") check({ message: error.message }, { message: { contains: wanted } });
    else check({ ...error, ...got } as Fields, { [key]: wanted });
  }
}
