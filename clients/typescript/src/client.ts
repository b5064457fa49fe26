/// <reference lib="esnext.disposable" preserve="true" />
import type { DescService } from "@bufbuild/protobuf";
import type { Client as Stubs } from "@connectrpc/connect";

import { Connection, type CallOptions, type Platform } from "./connection.js";
import type { Job } from "./job.js";
import { Jobs, type AsyncOrSync, type WaitOptions } from "./jobs.js";
import type { Command, JobOptions } from "./spec.js";
import { Workers } from "./workers.js";

/** What the clients for Node and for web pages have in common. */
export abstract class BaseClient implements AsyncDisposable {
  readonly #connection: Connection;
  /** Jobs by their ids, in lists, and as they change. */
  readonly jobs: Jobs;
  /** The machines that run jobs. */
  readonly workers: Workers;
  /** The address of the server. */
  readonly url: string;

  /** @internal */
  constructor(platform: Platform) {
    this.#connection = new Connection(platform);
    this.jobs = new Jobs(this.#connection);
    this.workers = new Workers(this.#connection);
    this.url = platform.url;
  }

  /**
   * Submits a job. It is durable when this resolves.
   *
   * @example
   * ```ts
   * const job = await client.submit(["python", "train.py"], { name: "train", cpus: 4, memory: "8Gi", env: { SEED: "7" } });
   * ```
   */
  submit(command: Command, options?: JobOptions & CallOptions): Promise<Job> {
    return this.jobs.submit(command, options);
  }

  /**
   * Submits a job and waits for its end. Rejects with a `JobFailedError`, `JobCanceledError` or `JobTimeoutError` when it has not
   * succeeded, unless `check` is false. `timeout` is the job's time, after which it is stopped; `timeoutMs` and `signal` end the waiting,
   * and not the job.
   *
   * @example
   * ```ts
   * const job = await client.run("make && make test", { timeout: 600_000 });
   * ```
   */
  async run(command: Command, options?: JobOptions & WaitOptions): Promise<Job> {
    return await (await this.submit(command, options)).wait(options);
  }

  /**
   * Submits many jobs in few calls, and resolves when all of them are durable. The jobs are in the order of the commands. Rejects with
   * a `BatchError` when some were refused; it has the others.
   */
  submitMany(commands: AsyncOrSync<Command>, options?: JobOptions & CallOptions): Promise<Job[]> {
    return this.jobs.submitMany(commands, options);
  }

  /**
   * Runs a job for every command, and yields them when they have ended, in the order of the commands. Jobs are submitted in batches, up
   * to some 10,000 ahead of what was yielded. Those that fail are yielded too; with `check: true` the first of them rejects. Leaving
   * the loop does not stop the jobs.
   *
   * @example
   * ```ts
   * const files = ["a.png", "b.png", "c.png"];
   * for await (const job of client.map(files.map((file) => ["convert", file, `${file}.jpg`]))) {
   *   console.log(job.id, job.state);
   * }
   * ```
   */
  map(commands: AsyncOrSync<Command>, options?: JobOptions & WaitOptions): AsyncGenerator<Job, void, undefined> {
    return this.jobs.map(commands, options);
  }

  /**
   * Yields jobs as they end, whichever is first. Those that fail are yielded too; with `check: true` the first of them rejects.
   *
   * @example
   * ```ts
   * const jobs = await client.submitMany(commands);
   * for await (const job of client.asCompleted(jobs)) console.log(job.id, job.state);
   * ```
   */
  asCompleted(jobs: Iterable<Job>, options?: WaitOptions): AsyncGenerator<Job, void, undefined> {
    return this.jobs.asCompleted(jobs, options);
  }

  /**
   * The generated stubs of a service, for what the methods do not cover. They prove who calls, but neither repeat calls nor translate
   * errors. It takes the service as an argument, so that a page contains only those that it uses.
   *
   * @example
   * ```ts
   * import { QueueService } from "@hodei/client/api";
   *
   * const { queues } = await client.raw(QueueService).listQueues({});
   * ```
   */
  raw<T extends DescService>(service: T): Stubs<T> {
    return this.#connection.stubs(service);
  }

  /** Ends everything that is under way, and closes the connection. Jobs go on. */
  close(): Promise<void> {
    this.#connection.close();
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
