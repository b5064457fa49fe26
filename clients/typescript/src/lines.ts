/** Where a step writes. */
export type StreamName = "stdout" | "stderr";

/** A line of a job's output, without its end. As a text it is the line: `${line}`. */
export class LogLine {
  constructor(
    /** The line. Bytes that are not UTF-8 are replaced by U+FFFD. */
    readonly text: string,
    /** When the agent read its first byte, on the worker's clock. */
    readonly time: Date,
    /** The step that wrote it. */
    readonly step: string,
    /** Where the step wrote it to. */
    readonly stream: StreamName,
    /** The attempt, counted from 1. */
    readonly attempt: number,
  ) {}

  /** The line. */
  toString(): string {
    return this.text;
  }
}

/** A run of bytes of a job's output, as one step wrote them. */
export interface LogChunk {
  /** The bytes. */
  readonly data: Uint8Array;
  /** When the agent read them, on the worker's clock. */
  readonly time: Date;
  /** The step that wrote them. */
  readonly step: string;
  /** Where the step wrote them to. */
  readonly stream: StreamName;
  /** The attempt, counted from 1. */
  readonly attempt: number;
  /** How many bytes of the attempt come before them. */
  readonly offset: number;
}

interface Partial {
  first: LogChunk;
  bytes: Uint8Array[];
}

const NEWLINE = 10;

/**
 * Puts lines together from chunks: each stream of each step by itself. It cuts bytes at newlines only, and decodes whole blocks of lines
 * at once, so that characters that come in pieces stay whole.
 */
export class LineSplitter {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #partials = new Map<string, Partial>();
  #attempt = 0;

  /** The lines that end in this chunk. */
  add(chunk: LogChunk): LogLine[] {
    const lines = chunk.attempt === this.#attempt ? [] : this.flush();
    this.#attempt = chunk.attempt;
    const { data, time, step, stream, attempt } = chunk;
    const key = `${stream} ${step}`;
    const partial = this.#partials.get(key);
    const end = data.lastIndexOf(NEWLINE);
    if (end < 0) {
      if (partial) partial.bytes.push(data);
      else if (data.length) this.#partials.set(key, { first: chunk, bytes: [data] });
      return lines;
    }
    let block = data.subarray(0, end);
    if (partial) {
      partial.bytes.push(block);
      block = concat(partial.bytes);
      this.#partials.delete(key);
    }
    const texts = this.#decoder.decode(block).split("\n");
    for (let i = 0; i < texts.length; i++) {
      lines.push(new LogLine(texts[i]!, i === 0 && partial ? partial.first.time : time, step, stream, attempt));
    }
    if (end + 1 < data.length) this.#partials.set(key, { first: chunk, bytes: [data.subarray(end + 1)] });
    return lines;
  }

  /** The lines that have no end. */
  flush(): LogLine[] {
    const lines: LogLine[] = [];
    for (const { first, bytes } of this.#partials.values()) {
      const text = this.#decoder.decode(concat(bytes));
      lines.push(new LogLine(text, first.time, first.step, first.stream, first.attempt));
    }
    this.#partials.clear();
    return lines;
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
