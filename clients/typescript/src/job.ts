import type { CallOptions } from "./connection.js";
import {
  CauseKind,
  JobState as State,
  StepState as StateOfStep,
  type Cause as CauseMessage,
  type Job as JobMessage,
  type ResourceUsage as UsageMessage,
} from "./gen/hodei/v1/job_pb.js";
import type { CancelOptions, Explanation, Jobs, WaitOptions } from "./jobs.js";
import type { LogChunk, LogLine } from "./lines.js";
import type { LogOptions, LogReader } from "./logs.js";
import { dateOf } from "./time.js";

/** Where a job stands. The last six never change. */
export type JobState = Exclude<keyof typeof State, "UNSPECIFIED">;

/** Where a step stands. */
export type StepState = Exclude<keyof typeof StateOfStep, "UNSPECIFIED">;

/** Why a job, or a step, ended. */
export interface Cause {
  readonly kind: Exclude<keyof typeof CauseKind, "UNSPECIFIED">;
  /** One sentence for people. */
  readonly message: string;
  /** The step that decided the end. */
  readonly step: string;
  /** Who asked for it, for a cancel. */
  readonly actor: string;
  /** The exit code, as a shell would tell it: 128 and the number for a signal. Undefined when no process ended. */
  readonly exitCode: number | undefined;
  /** The name of the signal that ended the process, for example "SIGKILL". */
  readonly signal: string | undefined;
}

/** What became of a step in the current or last attempt. */
export interface StepStatus {
  readonly name: string;
  readonly state: StepState;
  readonly cause: Cause | undefined;
  readonly started: Date | undefined;
  readonly ended: Date | undefined;
  readonly exitCode: number | undefined;
  /** What it used: times in milliseconds, memory in bytes. */
  readonly usage: { readonly userCpu: number; readonly systemCpu: number; readonly maxMemory: number } | undefined;
}

/**
 * A job: how it stood when it was last looked at, and what can be done with it. `refresh`, `wait` and `cancel` bring it up to date.
 *
 * @example
 * ```ts
 * const job = await client.submit(["make", "test"], { name: "test" });
 * for await (const line of job.logs({ follow: true })) console.log(line.text);
 * await job.wait();
 * console.log(job.state, job.exitCode);
 * ```
 */
export class Job {
  readonly #jobs: Jobs;
  #seen = 0;
  /** "job_" and a ULID. */
  readonly id!: string;
  readonly name!: string;
  readonly namespace!: string;
  readonly queue!: string;
  readonly labels!: Readonly<Record<string, string>>;
  readonly state!: JobState;
  /** Whether it has ended, well or not. */
  readonly done!: boolean;
  /** The exit code, as a shell would tell it: 128 and the number for a signal. Undefined before the end, and when no process ended. */
  readonly exitCode!: number | undefined;
  /** The name of the signal that ended it, for example "SIGKILL". */
  readonly signal!: string | undefined;
  /** Why it ended. */
  readonly cause!: Cause | undefined;
  /** The current or last attempt, counted from 1; 0 before the first. */
  readonly attempt!: number;
  /** The worker of the current or last attempt; empty before the first. */
  readonly workerId!: string;
  /** The steps of the current or last attempt. */
  readonly steps!: readonly StepStatus[];
  /** When the server accepted it. Undefined for a job of `map` or `submitMany` that was not looked at since. */
  readonly created!: Date | undefined;
  /** When the current or last attempt started. */
  readonly started!: Date | undefined;
  /** When it ended. */
  readonly ended!: Date | undefined;
  /** When a DELAYED job may start. */
  readonly nextAttempt!: Date | undefined;
  /** Why it waits, in one sentence; empty when it does not. */
  readonly pendingReason!: string;
  /** Why it does not start again until somebody releases it; empty when it is not held. */
  readonly held!: string;
  /** The address of its page. */
  readonly url!: string;
  /** Counts its changes. */
  readonly revision!: number;

  /** @internal */
  constructor(jobs: Jobs, message: JobMessage) {
    this.#jobs = jobs;
    this.update(message);
  }

  /** @internal Takes over how the job stands, unless it is known to be newer. */
  update(m: JobMessage): this {
    this.#seen = Date.now();
    if (m.revision < this.revision) return this;
    const cause = causeOf(m.cause);
    return Object.assign(this, {
      id: m.id,
      name: m.spec?.name ?? "",
      namespace: m.spec?.namespace || "default",
      queue: m.spec?.queue ?? "",
      labels: m.spec?.labels ?? {},
      state: nameOf(State, m.state),
      done: isTerminal(m),
      exitCode: m.state === State.SUCCEEDED ? 0 : cause?.exitCode,
      signal: cause?.signal,
      cause,
      attempt: m.attempt,
      workerId: m.workerId,
      steps: m.steps.map((step) => {
        const why = causeOf(step.cause);
        return {
          name: step.name,
          state: nameOf(StateOfStep, step.state),
          cause: why,
          started: dateOf(step.startTime),
          ended: dateOf(step.endTime),
          exitCode: why?.exitCode,
          usage: usageOf(step.usage),
        };
      }),
      created: dateOf(m.createTime),
      started: dateOf(m.startTime),
      ended: dateOf(m.endTime),
      nextAttempt: dateOf(m.nextAttemptTime),
      pendingReason: m.pendingReason,
      held: m.held,
      url: this.#jobs.urlOf(m.id),
      revision: m.revision,
    });
  }

  /** @internal When the server last told of it. */
  get seen(): number {
    return this.#seen;
  }

  /** Asks the server how the job stands. */
  async refresh(options?: CallOptions): Promise<this> {
    return this.update(await this.#jobs.fetch(this.id, options));
  }

  /**
   * Waits for the job's end, through restarts of the server. Rejects with a `JobFailedError`, `JobCanceledError` or `JobTimeoutError` when
   * it has not succeeded, unless `check` is false. Whoever stops waiting does not stop the job.
   *
   * @example
   * ```ts
   * await job.wait({ timeoutMs: 60_000 });
   * ```
   */
  wait(options?: WaitOptions): Promise<this> {
    return this.#jobs.waitFor(this, options);
  }

  /**
   * The job's output, line by line. Without `follow` it ends with what there is.
   *
   * @example
   * ```ts
   * for await (const line of job.logs({ follow: true, stream: "stderr" })) console.error(`${line}`);
   * ```
   */
  logs(options?: LogOptions): LogReader<LogLine> {
    return this.#jobs.logs(this.id, options);
  }

  /** The job's output as it was written, byte by byte. */
  chunks(options?: LogOptions): LogReader<LogChunk> {
    return this.#jobs.chunks(this.id, options);
  }

  /** Asks for the end of the job, or of one of its steps. Rejects with a `FailedPreconditionError` when it has ended already. */
  async cancel(options?: CancelOptions): Promise<this> {
    return this.update(await this.#jobs.end(this.id, options));
  }

  /** Says why the job waits, and what would help. */
  explain(options?: CallOptions): Promise<Explanation> {
    return this.#jobs.explain(this.id, options);
  }
}

/** Whether a job has ended. */
export function isTerminal(job: { state: State }): boolean {
  return job.state >= State.SUCCEEDED;
}

export function nameOf<T extends string>(names: { [value: number]: string }, value: number): T {
  return (names[value] ?? "UNSPECIFIED") as T;
}

// The signals of Linux on most processors, in the order of their numbers from 1.
const SIGNALS = (
  "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM " +
  "PROF WINCH IO PWR SYS"
).split(" ");

export function causeOf(m: CauseMessage | undefined): Cause | undefined {
  if (!m) return undefined;
  let exitCode: number | undefined;
  if (m.kind === CauseKind.EXIT_CODE || m.kind === CauseKind.INVALID) exitCode = m.exitCode;
  else if (m.kind === CauseKind.SIGNAL || m.kind === CauseKind.OUT_OF_MEMORY) {
    exitCode = 128 + (SIGNALS.indexOf(m.signal.slice(3)) + 1 || 9);
  }
  return {
    kind: nameOf(CauseKind, m.kind),
    message: m.message,
    step: m.step,
    actor: m.actor,
    exitCode,
    signal: m.signal || undefined,
  };
}

function usageOf(m: UsageMessage | undefined): StepStatus["usage"] {
  const ms = (d: UsageMessage["userCpu"]) => (d ? Number(d.seconds) * 1000 + d.nanos / 1e6 : 0);
  return m && { userCpu: ms(m.userCpu), systemCpu: ms(m.systemCpu), maxMemory: m.maxRssKib * 1024 };
}
