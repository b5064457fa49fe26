import { create } from "@bufbuild/protobuf";

import type { CallOptions, Connection } from "./connection.js";
import {
  BatchError,
  HodeiError,
  JobCanceledError,
  JobFailedError,
  JobTimeoutError,
  WaitTimeoutError,
  type JobError,
} from "./errors.js";
import { JobSchema, JobState as State, type Job as JobMessage } from "./gen/hodei/v1/job_pb.js";
import { Job, nameOf, type JobState } from "./job.js";
import type { LogChunk, LogLine } from "./lines.js";
import { readBytes, readLines, type LogOptions, type LogReader } from "./logs.js";
import { Scope, iterate } from "./scope.js";
import { specOf, type Command, type JobOptions } from "./spec.js";
import { dateOf } from "./time.js";
import { errorOf } from "./translate.js";
import { Waiting, watchJobs } from "./waiting.js";

/** How to wait. */
export interface WaitOptions extends CallOptions {
  /** How long to wait at most, in milliseconds. After that, a `WaitTimeoutError` says how the job stands. */
  timeoutMs?: number | undefined;
  /** Reject when the job has not succeeded; true when not set. */
  check?: boolean | undefined;
}

/** What of a job is to end, and how. */
export interface CancelOptions extends CallOptions {
  /** Only this step; the job goes on with the next. */
  step?: string | undefined;
  /** A word for the record. */
  reason?: string | undefined;
  /** SIGKILL at once. */
  force?: boolean | undefined;
}

/** Selects jobs; everything that is set must match. */
export interface JobFilter extends CallOptions {
  /** The client's namespace when not set; "*" for all. */
  namespace?: string | undefined;
  queue?: string | undefined;
  name?: string | undefined;
  states?: readonly JobState[] | undefined;
  labels?: Readonly<Record<string, string>> | undefined;
  /** At most 1000. */
  ids?: readonly string[] | undefined;
}

/** Which jobs to list, and how. */
export interface ListOptions extends JobFilter {
  /** How many jobs one call asks for, up to 1000; 50 when not set. */
  pageSize?: number | undefined;
  /** Stop after so many. */
  limit?: number | undefined;
}

/** Why a job waits. As a text it is the sentence for people. */
export interface Explanation {
  /** Why, in one sentence. */
  readonly text: string;
  /** What would let it start; empty when nothing is to be done but to wait. */
  readonly advice: string;
  readonly state: JobState;
  /** How many workers each filter refuses. */
  readonly filters: readonly { readonly filter: string; readonly workers: number; readonly text: string }[];
  /** How many workers are known. */
  readonly workers: number;
  /** How many of them can take the job now. */
  readonly fitting: number;
  /** How many jobs of its queue are more urgent. */
  readonly ahead: number;
  /** The limit that binds; empty: none. */
  readonly limit: string;
  /** When it may start, as far as can be told. */
  readonly earliest: Date | undefined;
  /** What would be better to ask for, after the latest runs; empty: nothing. */
  readonly sizing: string;
  toString(): string;
}

/** The errors of jobs that have not succeeded carry so many lines. */
const TAIL_LINES = 20;
/** How long the rest of a failed job's output is waited for. */
const TAIL_MS = 10_000;
/** One batch of submits: well below what the server takes (10,000 jobs, 4 MiB), so that a batch is answered soon. */
const BATCH_JOBS = 1000;
const BATCH_BYTES = 1 << 20;
/** How many batches are under way beyond the one that is being read. */
const BATCHES_AHEAD = 10;

/** The jobs of a server. It is `client.jobs`. */
export class Jobs {
  readonly #connection: Connection;
  readonly #waiting: Waiting;

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection;
    this.#waiting = new Waiting(connection);
  }

  /** Returns a job. Rejects with a `NotFoundError` when there is none with this id. */
  async get(id: string, options?: CallOptions): Promise<Job> {
    return new Job(this, await this.fetch(id, options));
  }

  /**
   * The jobs that match, the newest first, read page after page as they are needed.
   *
   * @example
   * ```ts
   * for await (const job of client.jobs.list({ states: ["FAILED"], limit: 10 })) console.log(job.id, job.name);
   * ```
   */
  async *list(options: ListOptions = {}): AsyncGenerator<Job, void, undefined> {
    const filter = this.#filter(options);
    let left = options.limit ?? Infinity;
    let pageToken = "";
    do {
      const request = { filter, pageToken, pageSize: options.pageSize ?? 0 };
      const page = await this.#connection.call((o) => this.#connection.jobs.listJobs(request, o), options);
      for (const job of page.jobs) {
        if (left-- <= 0) return;
        yield new Job(this, job);
      }
      pageToken = page.nextPageToken;
    } while (pageToken && left > 0);
  }

  /**
   * The jobs that match as they stand, then every change, through restarts of the server. A job may be yielded more than once for one
   * change. It ends when the loop is left, or the signal is aborted.
   *
   * @example
   * ```ts
   * for await (const job of client.jobs.watch({ labels: { team: "web" } })) console.log(job.id, job.state);
   * ```
   */
  watch(options: JobFilter = {}): AsyncIterable<Job> {
    return { [Symbol.asyncIterator]: () => iterate(options.signal, (scope) => this.#changes(options, scope)) };
  }

  async *#changes(options: JobFilter, scope: Scope): AsyncGenerator<Job, void, undefined> {
    try {
      for await (const message of watchJobs(this.#connection, this.#filter(options), scope.signal)) {
        for (const job of message.jobs) yield new Job(this, job);
      }
    } finally {
      scope.dispose();
    }
  }

  /** Waits for a job's end, as `job.wait()` does. */
  async wait(id: string, options: WaitOptions = {}): Promise<Job> {
    return await (await this.get(id, options)).wait(options);
  }

  /** A job's output, line by line, as `job.logs()` gives it. */
  logs(id: string, options: LogOptions = {}): LogReader<LogLine> {
    return readLines(this.#connection, id, options);
  }

  /** A job's output, byte by byte, as `job.chunks()` gives it. */
  chunks(id: string, options: LogOptions = {}): LogReader<LogChunk> {
    return readBytes(this.#connection, id, options);
  }

  /** Asks for the end of a job, as `job.cancel()` does, and returns it as it stands then. */
  async cancel(id: string, options?: CancelOptions): Promise<Job> {
    return new Job(this, await this.end(id, options));
  }

  /** Says why a job waits, and what would help. */
  async explain(id: string, options?: CallOptions): Promise<Explanation> {
    const request = { subject: { case: "id" as const, value: id } };
    const e = await this.#connection.call((o) => this.#connection.jobs.explainJob(request, o), options);
    return {
      text: e.text,
      advice: e.advice,
      state: nameOf(State, e.state),
      filters: e.filters.map(({ filter, workers, text }) => ({ filter, workers, text })),
      workers: e.workers,
      fitting: e.fitting,
      ahead: e.ahead,
      limit: e.limit,
      earliest: dateOf(e.earliest),
      sizing: e.sizing,
      toString: () => e.text,
    };
  }

  /** @internal */
  async submit(command: Command, options: JobOptions & CallOptions = {}): Promise<Job> {
    const request = { spec: this.#spec(command, options), requestId: requestId() };
    const { job } = await this.#connection.call((o) => this.#connection.jobs.submitJob(request, o), options);
    return new Job(this, job!);
  }

  /** @internal */
  async submitMany(commands: AsyncOrSync<Command>, options: JobOptions & CallOptions = {}): Promise<Job[]> {
    const jobs: (Job | undefined)[] = [];
    const refused: { index: number; error: HodeiError }[] = [];
    for await (const batch of this.#batches(commands, options)) {
      for (const result of await this.#submitBatch(batch, options)) {
        if (result instanceof Job) jobs.push(result);
        else refused.push({ index: jobs.push(undefined) - 1, error: result });
      }
    }
    if (refused.length) throw new BatchError(jobs, refused);
    return jobs as Job[];
  }

  /** @internal */
  async *map(
    commands: AsyncOrSync<Command>,
    options: JobOptions & WaitOptions = {},
  ): AsyncGenerator<Job, void, undefined> {
    const scope = this.#connection.scope(options.signal);
    const { signal } = scope;
    const batches = this.#batches(commands, options);
    // Each batch is submitted after the one before; meanwhile those before are waited for.
    let last: Promise<Promise<Job>[] | undefined> = Promise.resolve([]);
    const submitNext = async (): Promise<Promise<Job>[] | undefined> => {
      const batch = await batches.next();
      if (batch.done) return undefined;
      const results = await this.#submitBatch(batch.value, { signal });
      return results.map((result) =>
        quiet(result instanceof Job ? this.#endOf(result, options, signal) : Promise.reject(result)),
      );
    };
    try {
      const window: (typeof last)[] = [];
      for (;;) {
        while (window.length <= BATCHES_AHEAD) window.push((last = quiet(last.then((jobs) => jobs && submitNext()))));
        const jobs = await window.shift();
        if (!jobs) return;
        for (const job of jobs) yield await job;
      }
    } finally {
      scope.dispose();
    }
  }

  /** @internal */
  async *asCompleted(jobs: Iterable<Job>, options: WaitOptions = {}): AsyncGenerator<Job, void, undefined> {
    const scope = this.#connection.scope(options.signal);
    try {
      const ended: Promise<Job>[] = [];
      let wake = () => {};
      let left = 0;
      for (const job of jobs) {
        left++;
        const waiting = quiet(this.#endOf(job, options, scope.signal));
        const arrived = () => {
          ended.push(waiting);
          wake();
        };
        waiting.then(arrived, arrived);
      }
      for (; left > 0; left--) {
        if (!ended.length) await new Promise<void>((resolve) => (wake = resolve));
        yield await ended.shift()!;
      }
    } finally {
      scope.dispose();
    }
  }

  /** @internal */
  async fetch(id: string, options?: CallOptions): Promise<JobMessage> {
    const { job } = await this.#connection.call((o) => this.#connection.jobs.getJob({ id }, o), options);
    return job!;
  }

  /** @internal */
  async end(id: string, options: CancelOptions = {}): Promise<JobMessage> {
    const { step = "", reason = "", force = false } = options;
    const request = { id, step, reason, force, requestId: requestId() };
    const { job } = await this.#connection.call((o) => this.#connection.jobs.cancelJob(request, o), options);
    return job!;
  }

  /** @internal */
  async waitFor<T extends Job>(job: T, options: WaitOptions = {}): Promise<T> {
    const scope = this.#connection.scope(options.signal);
    try {
      return await this.#endOf(job, { ...options, check: options.check ?? true }, scope.signal);
    } finally {
      scope.dispose();
    }
  }

  /** Waits within a scope that there is already. */
  async #endOf<T extends Job>(job: T, { check, timeoutMs }: WaitOptions, signal: AbortSignal): Promise<T> {
    if (!job.done && timeoutMs === undefined) await this.#waiting.ended(job, signal);
    else if (!job.done) {
      const late = new Error("late");
      const scope = new Scope(signal).after(timeoutMs, () => late);
      try {
        await this.#waiting.ended(job, scope.signal);
      } catch (error) {
        throw error === late ? await this.#tooLate(job, timeoutMs!, signal) : error;
      } finally {
        scope.dispose();
      }
    }
    if (check && job.state !== "SUCCEEDED") throw await this.#failure(job, signal);
    return job;
  }

  /** @internal */
  urlOf(id: string): string {
    return `${this.#connection.platform.url}/jobs/${id}`;
  }

  async #tooLate(job: Job, timeoutMs: number, signal: AbortSignal): Promise<WaitTimeoutError> {
    let why = "";
    // Only what can be had at once: the caller's time is over.
    const scope = new Scope(signal).after(1000, () => undefined);
    try {
      await job.refresh({ signal: scope.signal });
      if (!job.started || job.state === "DELAYED") why = (await job.explain({ signal: scope.signal })).text;
    } catch {
      why = job.pendingReason;
    } finally {
      scope.dispose();
    }
    return new WaitTimeoutError(
      `job ${job.id} has not ended within ${timeoutMs} ms: it is ${job.state}${why && `, because ${why}`}; it goes on`,
      { code: "deadline_exceeded" },
    );
  }

  async #failure(job: Job, signal: AbortSignal): Promise<JobError> {
    let tail: string[] = [];
    const scope = new Scope(signal).after(TAIL_MS, () => undefined);
    try {
      for await (const line of this.logs(job.id, { tail: TAIL_LINES, signal: scope.signal })) {
        tail.push(line.text);
        if (tail.length > 2 * TAIL_LINES) tail = tail.slice(-TAIL_LINES);
      }
    } catch {
      signal.throwIfAborted();
      // The failure of the job is what counts, with as many lines as there are.
    } finally {
      scope.dispose();
    }
    tail = tail.slice(-TAIL_LINES);
    if (job.state === "CANCELED") return new JobCanceledError(job, "canceled", tail);
    if (job.state === "TIMED_OUT") return new JobTimeoutError(job, "deadline_exceeded", tail);
    return new JobFailedError(job, "aborted", tail);
  }

  #spec(command: Command, options: JobOptions) {
    return specOf(command, options, this.#connection.platform.namespace);
  }

  #filter(o: JobFilter) {
    return {
      namespace: o.namespace ?? this.#connection.platform.namespace,
      queue: o.queue ?? "",
      name: o.name ?? "",
      states: (o.states ?? []).map((state) => State[state]),
      labels: { ...o.labels },
      ids: [...(o.ids ?? [])],
    };
  }

  async *#batches(commands: AsyncOrSync<Command>, options: JobOptions) {
    // A loop through a text would make a job of every character.
    if (typeof commands === "string") throw errorOf("invalid_argument", "this takes a list of commands, and not one command");
    let batch: Spec[] = [];
    let bytes = 0;
    // A little more than what is sent, and much faster than encoding it twice.
    const common = JSON.stringify({ ...options, signal: undefined }).length + 200;
    for await (const command of commands) {
      const size = common + JSON.stringify(command).length;
      if (batch.length && (batch.length === BATCH_JOBS || bytes + size > BATCH_BYTES)) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      batch.push(this.#spec(command, options));
      bytes += size;
    }
    if (batch.length) yield batch;
  }

  async #submitBatch(specs: Spec[], options: CallOptions): Promise<(Job | HodeiError)[]> {
    const request = { requests: specs.map((spec) => ({ spec })), requestId: requestId() };
    const { results } = await this.#connection.call((o) => this.#connection.jobs.submitJobs(request, o), options);
    return results.map(({ jobId, problem }, i) =>
      problem
        ? errorOf(problem.code, problem.message)
        : new Job(this, create(JobSchema, { id: jobId, spec: specs[i]!, state: State.QUEUED })),
    );
  }
}

/** What `map` and `submitMany` take: what a loop or an asynchronous loop can go through. */
type Spec = ReturnType<typeof specOf>;

export type AsyncOrSync<T> = Iterable<T> | AsyncIterable<T>;

/** Makes a mutation safe to repeat. Not randomUUID: pages without TLS do not have it. */
function requestId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Says that a rejection is looked at later. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
