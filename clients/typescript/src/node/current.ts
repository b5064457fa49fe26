import { createConnection } from "node:net";

import { ConfigurationError, HodeiError } from "../errors.js";

/** How long the agent may take to answer. */
const AGENT_LIMIT = 10_000;

/** The job that this process belongs to. */
export interface CurrentJob {
  readonly jobId: string;
  readonly jobName: string;
  readonly namespace: string;
  readonly queue: string;
  /** The attempt, counted from 1. */
  readonly attempt: number;
  /** The name of the step. */
  readonly step: string;
  /** The number of the step, as the agent counts it. */
  readonly stepIndex: number;
  /**
   * Has a further secret replaced by "****" in everything that the job writes from now on, also in other forms such as base64. The
   * replacements are counted under the name. Resolves with warnings that say what will not be replaced.
   */
  mask(value: string | Uint8Array, name?: string): Promise<string[]>;
  /** Says how far the job is, from 0 to 1. */
  progress(fraction: number, message?: string): Promise<void>;
}

/**
 * The job that this process belongs to. Throws a `ConfigurationError` outside of a job.
 *
 * @example
 * ```ts
 * import { current } from "@hodei/client/node";
 *
 * const job = current();
 * const password = await fetchPassword();
 * await job.mask(password, "database");
 * await job.progress(0.5, "half of the tables are copied");
 * ```
 */
export function current(environment: Readonly<Record<string, string | undefined>> = process.env): CurrentJob {
  const variable = (name: string) => environment[`HODEI_${name}`] ?? "";
  const jobId = variable("JOB_ID");
  if (!jobId) {
    throw new ConfigurationError("this is no job: HODEI_JOB_ID is not set; current() works in processes that Hodei runs", {
      code: "failed_precondition",
    });
  }
  const ask = (request: object) => askAgent(variable("AGENT_SOCKET"), request);
  return {
    jobId,
    jobName: variable("JOB_NAME"),
    namespace: variable("NAMESPACE"),
    queue: variable("QUEUE"),
    attempt: Number(variable("ATTEMPT")),
    step: variable("STEP"),
    stepIndex: Number(variable("STEP_INDEX")),
    async mask(value, name = "") {
      const { warnings } = await ask({ mask: { name, value: Buffer.from(value as string).toString("base64") } });
      return warnings ?? [];
    },
    async progress(fraction, message = "") {
      await ask({ progress: { fraction, message } });
    },
  };
}

/** Sends the agent one JSON value, which it answers with one. */
function askAgent(path: string, request: object): Promise<{ warnings?: string[] }> {
  if (!path) {
    throw new ConfigurationError("HODEI_AGENT_SOCKET is not set: the agent of this job has no socket", {
      code: "failed_precondition",
    });
  }
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const failed = (why: string, cause?: unknown) =>
      reject(new HodeiError(`the agent at ${path} ${why}`, { code: "unavailable", cause }));
    const socket = createConnection(path, () => socket.write(`${JSON.stringify(request)}\n`));
    socket.setTimeout(AGENT_LIMIT, () => socket.destroy(new Error(`no answer within ${AGENT_LIMIT} ms`)));
    socket.on("error", (error) => failed(`was not reached: ${error.message}`, error));
    socket.on("data", (part: Buffer) => parts.push(part));
    socket.on("end", () => {
      try {
        const answer = JSON.parse(Buffer.concat(parts).toString()) as { warnings?: string[]; error?: string };
        if (answer.error) failed(`says: ${answer.error}`);
        else resolve(answer);
      } catch (error) {
        failed("has not answered in JSON", error);
      }
    });
  });
}
