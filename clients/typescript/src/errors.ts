import type { Job } from "./job.js";

/** The code of an error, as the Connect protocol names it. */
export type ErrorCode =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

/** What an error has besides its message. */
export interface ErrorFields {
  code?: ErrorCode;
  reason?: string;
  retryAfter?: number | undefined;
  cause?: unknown;
}

/**
 * The base of all errors of this package. The message says what is wrong and what to do.
 *
 * @example
 * ```ts
 * try {
 *   await client.run(["make", "test"]);
 * } catch (error) {
 *   if (error instanceof JobFailedError) console.error(error.exitCode, error.logTail);
 *   else if (error instanceof HodeiError) console.error(error.code, error.message);
 *   else throw error;
 * }
 * ```
 */
export class HodeiError extends Error {
  /** The code, as the Connect protocol names it. */
  readonly code: ErrorCode;
  /** The server's reason, for example "JOB_NOT_FOUND"; empty when the server did not say one. */
  readonly reason: string;
  /** When set, the same call may succeed after so many milliseconds. */
  declare readonly retryAfter: number | undefined;

  constructor(message: string, fields: ErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.code = fields.code ?? "unknown";
    this.reason = fields.reason ?? "";
    if (fields.retryAfter !== undefined) this.retryAfter = fields.retryAfter;
  }

  // Getters and not fields: names survive minifiers, and do not clutter what a console prints.
  override get name(): string {
    return "HodeiError";
  }
}

/** There is no such job, step or other thing. */
export class NotFoundError extends HodeiError {
  override get name(): string {
    return "NotFoundError";
  }
}

/** A part of the request is wrong; the message names it. */
export class InvalidArgumentError extends HodeiError {
  override get name(): string {
    return "InvalidArgumentError";
  }
}

/** It cannot be done as things stand, for example because the job has ended. */
export class FailedPreconditionError extends HodeiError {
  override get name(): string {
    return "FailedPreconditionError";
  }
}

/** The caller lacks the permission that the message names. */
export class PermissionDeniedError extends HodeiError {
  override get name(): string {
    return "PermissionDeniedError";
  }
}

/** The caller has not proved who they are, or the proof is no longer good. */
export class UnauthenticatedError extends HodeiError {
  override get name(): string {
    return "UnauthenticatedError";
  }
}

/** A limit of the server is reached; the message names it. */
export class QuotaExceededError extends HodeiError {
  override get name(): string {
    return "QuotaExceededError";
  }
}

/** No server was reached, it is not the one that was meant, or it cannot answer now. */
export class UnavailableError extends HodeiError {
  override get name(): string {
    return "UnavailableError";
  }
}

/** Client and server do not understand each other: one of them has to be updated. */
export class VersionSkewError extends HodeiError {
  override get name(): string {
    return "VersionSkewError";
  }
}

/** The caller's own time for a call or a wait is over. The job goes on. */
export class WaitTimeoutError extends HodeiError {
  override get name(): string {
    return "WaitTimeoutError";
  }
}

/** What the caller or the environment says makes no sense. Nothing was sent. */
export class ConfigurationError extends HodeiError {
  override get name(): string {
    return "ConfigurationError";
  }
}

/** Some jobs of a batch were refused. The others were submitted. */
export class BatchError extends HodeiError {
  /** The jobs in the order of the commands; undefined where one was refused. */
  readonly jobs: readonly (Job | undefined)[];
  /** What was refused and why. */
  readonly refused: readonly { readonly index: number; readonly error: HodeiError }[];

  /** @internal */
  constructor(jobs: BatchError["jobs"], refused: BatchError["refused"]) {
    const { index, error } = refused[0]!;
    super(
      `${refused.length} of ${jobs.length} jobs were refused, and the others were submitted; the first is number ${index}: ` +
        error.message,
      { code: error.code, reason: error.reason, cause: error },
    );
    this.jobs = jobs;
    this.refused = refused;
  }

  override get name(): string {
    return "BatchError";
  }
}

/** The base of what waiting for a job raises when it has not succeeded. */
export class JobError extends HodeiError {
  /** The job as it ended. */
  declare readonly job: Job;
  /** The exit code, as a shell would tell it: 128 and the number for a signal. Undefined when no process ended. */
  readonly exitCode: number | undefined;
  /** The name of the signal that ended the process, for example "SIGKILL". */
  readonly signal: string | undefined;
  /** The last lines of the job's output, at most 20. */
  declare readonly logTail: readonly string[];
  /** The address of the job's page. */
  declare readonly url: string;

  /** @internal */
  constructor(job: Job, code: ErrorCode, logTail: readonly string[]) {
    let message = `job ${job.name ? `${job.name} (${job.id})` : job.id} ${ENDS[job.state] ?? "failed"}`;
    if (job.cause?.message) message += `: ${job.cause.message}`;
    else if (job.exitCode !== undefined) message += `: ${job.cause?.step || "it"} ended with exit code ${job.exitCode}`;
    if (job.url) message += `\n${job.url}`;
    if (logTail.length) message += `\nIts last lines were:\n${logTail.map((line) => `  ${line}`).join("\n")}`;
    super(message, { code });
    this.exitCode = job.exitCode;
    this.signal = job.signal;
    // The message tells of them: a console that prints the error need not print them all again.
    const hidden = { job, logTail, url: job.url };
    for (const [name, value] of Object.entries(hidden)) Object.defineProperty(this, name, { value });
  }

  override get name(): string {
    return "JobError";
  }
}

const ENDS: { [state: string]: string } = {
  CANCELED: "was canceled",
  TIMED_OUT: "ran out of time",
  LOST: "was lost with its worker",
  SKIPPED: "was skipped",
};

/** The job that was waited for has failed, was lost with its worker, or was skipped. */
export class JobFailedError extends JobError {
  override get name(): string {
    return "JobFailedError";
  }
}

/** The job that was waited for was canceled. */
export class JobCanceledError extends JobError {
  override get name(): string {
    return "JobCanceledError";
  }
}

/** The job that was waited for ran out of its time. */
export class JobTimeoutError extends JobError {
  override get name(): string {
    return "JobTimeoutError";
  }
}
