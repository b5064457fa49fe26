import type { MessageInitShape } from "@bufbuild/protobuf";

import type { CallOptions, Connection } from "./connection.js";
import { HodeiError } from "./errors.js";
import {
  LogState,
  LogStream,
  type LogCompleteness as CompletenessMessage,
  type TailLogsRequestSchema,
} from "./gen/hodei/v1/log_service_pb.js";
import { LineSplitter, type LogChunk, type LogLine, type StreamName } from "./lines.js";
import { iterate, type Scope } from "./scope.js";
import { timestamp } from "./spec.js";
import { dateOf } from "./time.js";

/** Which part of a job's output is wanted. */
export interface LogOptions extends CallOptions {
  /**
   * Stay until the job has ended and its log is complete. Without it the log ends with what there is; of a job that has ended, what is
   * still on its way from the worker is awaited for a few seconds.
   */
  follow?: boolean | undefined;
  /** Only this stream. */
  stream?: StreamName | undefined;
  /** Only the step of this name. */
  step?: string | undefined;
  /** Where to begin, counted from 1; the last attempt when not set. */
  attempt?: number | undefined;
  /** Begin so many lines before the present end. Of tail, line and since, one may be set. */
  tail?: number | undefined;
  /** Begin with this line, counted from 1 over all steps and streams. */
  line?: number | undefined;
  /** Begin with what was written then, on the worker's clock, or later. */
  since?: Date | undefined;
  /** End before what was written then or later. */
  until?: Date | undefined;
}

/** How complete a log is that was read. */
export interface LogCompleteness {
  /** LIVE: the job may write more. COMPLETE: that was all. GAP: that was all, and some bytes are missing. */
  readonly state: "LIVE" | "COMPLETE" | "GAP";
  /** For GAP: which bytes are missing and why. */
  readonly message: string;
  /** The bytes that are missing. */
  readonly gaps: readonly { attempt: number; begin: number; end: number | undefined; reason: string }[];
}

/**
 * A job's output, to be read with `for await`. It goes on through restarts of the server and broken connections: nothing is lost or
 * doubled. Leaving the loop ends the stream; it does not end the job.
 */
export class LogReader<T> implements AsyncIterable<T> {
  readonly #read: Read<T>;
  readonly #signal: AbortSignal | undefined;
  /** How complete the log is; set when it has been read to its end. */
  completeness: LogCompleteness | undefined;

  /** @internal */
  constructor(read: Read<T>, signal: AbortSignal | undefined) {
    this.#read = read;
    this.#signal = signal;
  }

  [Symbol.asyncIterator](): AsyncIterator<T, void, undefined> {
    return iterate(this.#signal, (scope) => this.#read(scope, (completeness) => (this.completeness = completeness)));
  }

  /** Reads everything into an array. */
  async toArray(): Promise<T[]> {
    const items: T[] = [];
    for await (const item of this) items.push(item);
    return items;
  }
}

type Report = (completeness: LogCompleteness) => void;
type Read<T> = (scope: Scope, report: Report) => AsyncGenerator<T, void, undefined>;

export function readLines(connection: Connection, id: string, options: LogOptions): LogReader<LogLine> {
  return new LogReader(async function* (scope, report) {
    try {
      const splitter = new LineSplitter();
      for await (const chunks of readChunks(connection, id, options, scope.signal, report)) {
        // Not yield*, which is slower.
        for (const chunk of chunks) for (const line of splitter.add(chunk)) yield line;
      }
      for (const line of splitter.flush()) yield line;
    } finally {
      scope.dispose();
    }
  }, options.signal);
}

export function readBytes(connection: Connection, id: string, options: LogOptions): LogReader<LogChunk> {
  return new LogReader(async function* (scope, report) {
    try {
      for await (const chunks of readChunks(connection, id, options, scope.signal, report)) {
        for (const chunk of chunks) yield chunk;
      }
    } finally {
      scope.dispose();
    }
  }, options.signal);
}

async function* readChunks(
  connection: Connection,
  id: string,
  o: LogOptions,
  signal: AbortSignal,
  report: Report,
): AsyncGenerator<LogChunk[], void, undefined> {
  const request: MessageInitShape<typeof TailLogsRequestSchema> = {
    jobId: id,
    follow: o.follow ?? false,
    step: o.step ?? "",
    stream: o.stream === undefined ? LogStream.UNSPECIFIED : STREAMS[o.stream],
    cursor: { attempt: o.attempt ?? 0 },
    ...(o.until && { until: timestamp(o.until) }),
  };
  if (o.tail !== undefined) request.begin = { case: "tailLines", value: o.tail };
  else if (o.line !== undefined) request.begin = { case: "line", value: String(o.line) };
  else if (o.since) request.begin = { case: "since", value: timestamp(o.since) };
  const whole = !o.step && !o.stream && !request.begin && !o.until;
  const proof = whole ? new Proof(connection.platform.sha256) : undefined;
  let last: CompletenessMessage | undefined;
  const messages = connection.follow(
    (options) => connection.logs.tailLogs(request, options),
    () => last !== undefined,
    { signal },
  );
  for await (const message of messages) {
    const chunks = message.chunks.map((c) => ({
      data: c.data,
      time: dateOf(c.time) ?? new Date(0),
      step: c.step,
      stream: c.stream === LogStream.STDERR ? ("stderr" as const) : ("stdout" as const),
      attempt: c.attempt,
      offset: Number(c.offset),
    }));
    request.cursor = message.cursor!; // goes on from there
    request.begin = { case: undefined };
    for (const chunk of chunks) proof?.add(chunk);
    if (chunks.length) yield chunks;
    if (message.completeness?.state) {
      last = message.completeness;
      proof?.check(id, last);
      report({
        state: LogState[last.state] as LogCompleteness["state"],
        message: last.message,
        gaps: last.gaps.map((gap) => ({
          attempt: gap.attempt,
          begin: Number(gap.begin),
          end: gap.end ? Number(gap.end) : undefined,
          reason: gap.reason,
        })),
      });
    }
  }
}

const STREAMS = { stdout: LogStream.STDOUT, stderr: LogStream.STDERR };

interface Sum {
  bytes: number;
  hash: { update(data: Uint8Array): unknown; digest(): Uint8Array } | undefined;
}

/** Counts the streams of an attempt as they are read, and hashes them where that is possible, to be compared with what was written. */
class Proof {
  readonly #sha256: Connection["platform"]["sha256"];
  #attempt = 0;
  #sums = new Map<string, Sum>();

  constructor(sha256: Connection["platform"]["sha256"]) {
    this.#sha256 = sha256;
  }

  add(chunk: LogChunk): void {
    if (chunk.attempt !== this.#attempt) this.#sums.clear();
    this.#attempt = chunk.attempt;
    const sum = this.#sum(`${STREAMS[chunk.stream]} ${chunk.step}`);
    sum.bytes += chunk.data.length;
    sum.hash?.update(chunk.data);
  }

  #sum(key: string): Sum {
    let sum = this.#sums.get(key);
    if (!sum) this.#sums.set(key, (sum = { bytes: 0, hash: this.#sha256?.() }));
    return sum;
  }

  /** A log without hashes is taken as it is. */
  check(id: string, completeness: CompletenessMessage): void {
    if (completeness.state !== LogState.COMPLETE) return;
    for (const total of completeness.streams) {
      const { bytes, hash } = this.#sum(`${total.stream} ${total.step}`);
      const digest = hash?.digest();
      if (String(bytes) !== total.bytes || (digest && digest.some((byte, i) => byte !== total.sha256[i]))) {
        throw new HodeiError(
          `the log of job ${id} is damaged: step ${total.step} has written ${total.bytes} bytes, and other ones were read (${bytes})`,
          { code: "data_loss" },
        );
      }
    }
  }
}
