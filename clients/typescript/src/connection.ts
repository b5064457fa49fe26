import type { DescService } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createClient,
  type Client as Stubs,
  type Interceptor,
  type StreamResponse,
  type Transport,
} from "@connectrpc/connect";

import { HodeiError, UnauthenticatedError, UnavailableError, WaitTimeoutError } from "./errors.js";
import { AuthService } from "./gen/hodei/v1/auth_service_pb.js";
import { JobService } from "./gen/hodei/v1/job_service_pb.js";
import { LogService } from "./gen/hodei/v1/log_service_pb.js";
import { Scope, pause, within } from "./scope.js";
import { AccessToken, type Secret } from "./token.js";
import { isRemote, ownError, translate, type Diagnose } from "./translate.js";
import { VERSION } from "./version.js";

/** What is different in Node and in a browser. */
export interface Platform {
  readonly url: string;
  readonly namespace: string;
  readonly secret: Secret | undefined;
  readonly timeoutMs: number | undefined;
  readonly diagnose: Diagnose;
  /** Whether the server has ever answered. */
  readonly reached: () => boolean;
  readonly transport: (interceptors: Interceptor[]) => Transport;
  readonly close: () => void;
  /** A SHA-256 that is computed piece by piece, where there is one. */
  readonly sha256?: () => { update(data: Uint8Array): unknown; digest(): Uint8Array };
}

/** Waits between tries grow from the shortest to the longest. */
const SHORTEST_WAIT = 50;
const LONGEST_WAIT = 2000;
/** The server sends something at least every 15 seconds. A stream that is silent for so long is dead. */
const SILENCE_LIMIT = 45_000;
/** The time for an exchange of tokens, which goes on without the call that began it. */
const EXCHANGE_LIMIT = 30_000;

/** What every call takes. */
export interface CallOptions {
  /** Stops the call, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The calls to one server: they prove who calls, and are repeated where that is safe. */
export class Connection {
  readonly platform: Platform;
  readonly jobs: Stubs<typeof JobService>;
  readonly logs: Stubs<typeof LogService>;
  readonly #transport: Transport;
  readonly #closed = new AbortController();
  readonly #token: AccessToken | undefined;

  constructor(platform: Platform) {
    this.platform = platform;
    const named: Interceptor = (next) => (request) => {
      request.header.set("Hodei-Client", `typescript/${VERSION}`);
      return next(request);
    };
    if (platform.secret !== undefined) {
      const auth = createClient(AuthService, platform.transport([named]));
      this.#token = new AccessToken(platform.secret, async (apiToken) => {
        const response = await auth.exchangeToken(
          { proof: { case: "apiToken", value: apiToken } },
          { timeoutMs: EXCHANGE_LIMIT, signal: this.#closed.signal },
        );
        if (!response.accessToken || !response.expireTime) {
          throw new UnauthenticatedError("the server has answered the exchange of the token without an access token", {
            code: "unauthenticated",
          });
        }
        return { value: response.accessToken, expires: Number(response.expireTime.seconds) * 1000 };
      });
    }
    this.#transport = platform.transport(this.#token ? [named, this.#prove(this.#token)] : [named]);
    this.jobs = this.stubs(JobService);
    this.logs = this.stubs(LogService);
  }

  stubs<T extends DescService>(service: T): Stubs<T> {
    return createClient(service, this.#transport);
  }

  close(): void {
    this.#closed.abort(new HodeiError("the client was closed", { code: "canceled" }));
    this.platform.close();
  }

  /** A scope that ends with the client. */
  scope(...parents: (AbortSignal | undefined)[]): Scope {
    return new Scope(this.#closed.signal, ...parents);
  }

  /** Makes a call that is safe to repeat, until it succeeds, fails for good, or the caller wants no more. */
  async call<T>(once: (options: { signal: AbortSignal }) => Promise<T>, options: CallOptions = {}): Promise<T> {
    let failure: unknown;
    const { timeoutMs } = this.platform;
    const scope = this.scope(options.signal).after(
      timeoutMs,
      () =>
        new WaitTimeoutError(
          `${this.platform.url} has not answered within ${timeoutMs} ms` +
            (failure === undefined ? "" : `; the last try failed: ${this.translate(failure).message}`),
          { code: "deadline_exceeded" },
        ),
    );
    const { signal } = scope;
    try {
      for (let wait = SHORTEST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
        signal.throwIfAborted();
        const attempt = new Scope(signal);
        try {
          return await once(attempt);
        } catch (error) {
          signal.throwIfAborted();
          if (!this.#transient(error)) throw this.translate(error);
          failure = error;
        } finally {
          attempt.dispose();
        }
        await pause(jitter(wait), signal);
      }
    } finally {
      scope.dispose();
    }
  }

  /**
   * Yields the messages of a stream, which is opened again when it breaks, until it ends after complete() has become true. What open
   * asks for has to go on where the last message ended.
   */
  async *follow<T>(
    open: (options: { signal: AbortSignal }) => AsyncIterable<T>,
    complete: () => boolean,
    options: CallOptions & { restart?: (error: unknown) => boolean } = {},
  ): AsyncGenerator<T, void, undefined> {
    const scope = this.scope(options.signal);
    const { signal } = scope;
    try {
      let proven = false; // the last stream was taken for the caller's
      for (let wait = SHORTEST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
        let failure: unknown = this.#broken("was cut off");
        const attempt = new Scope(signal);
        try {
          signal.throwIfAborted();
          const stream = open(attempt)[Symbol.asyncIterator]();
          for (;;) {
            const silence = setTimeout(() => attempt.abort(this.#broken("is silent")), SILENCE_LIMIT);
            const next = await stream.next().finally(() => clearTimeout(silence));
            if (next.done) break;
            proven = true;
            wait = SHORTEST_WAIT;
            yield next.value;
            signal.throwIfAborted();
          }
        } catch (error) {
          failure = error;
        } finally {
          attempt.dispose();
        }
        if (complete()) return;
        signal.throwIfAborted();
        if (options.restart?.(failure)) continue;
        // A stream that went well until the proof ran out: there is a fresh one for the next.
        const expired = proven && this.#token && ConnectError.from(failure).code === Code.Unauthenticated;
        proven = false;
        if (!expired && !this.#transient(failure)) throw this.translate(failure);
        await pause(jitter(wait), signal);
      }
    } finally {
      scope.dispose();
    }
  }

  #broken(how: string): UnavailableError {
    return new UnavailableError(`the stream from ${this.platform.url} ${how}`, { code: "unavailable" });
  }

  /** Whether the same call may succeed later: the server stops, or the connection to it broke. */
  #transient(error: unknown): boolean {
    if (isRemote(error)) return error.code === Code.Unavailable;
    // A server that has never answered is more likely a wrong address than one that starts again.
    if (!this.platform.reached()) return false;
    const own = ownError(error);
    return own ? own instanceof UnavailableError : this.platform.diagnose(error).kind === "broken";
  }

  /** Makes an error of this package of what a call threw. */
  translate(error: unknown): HodeiError {
    return translate(error, this.platform.url, this.platform.diagnose);
  }

  /** Sends an access token with every call. A call whose token the server refuses is made once more with another one. */
  #prove(token: AccessToken): Interceptor {
    return (next) => async (request) => {
      let used = "";
      const open = async () => {
        used = ""; // until there is one, what fails is the exchange
        used = await within(token.get(), request.signal);
        request.header.set("Authorization", `Bearer ${used}`);
        return await next(request);
      };
      const refused = (error: unknown) =>
        used !== "" && isRemote(error) && error.code === Code.Unauthenticated && token.discard(used);
      if (!request.stream) {
        try {
          return await open();
        } catch (error) {
          if (!refused(error)) throw error;
          return await open();
        }
      }
      // A stream says that it was refused in its first message, after the request was sent. That is one message, too.
      const input: unknown[] = [];
      for await (const message of request.message) input.push(message);
      const again = (async function* () {
        yield* input;
      }) as () => AsyncGenerator<never>;
      const reopen = () => {
        (request as { message: AsyncIterable<never> }).message = again();
        return open() as Promise<StreamResponse>;
      };
      let response: StreamResponse;
      try {
        response = await reopen();
      } catch (error) {
        if (!refused(error)) throw error;
        return await reopen();
      }
      const messages = async function* () {
        let answered = false;
        try {
          for await (const message of response.message) {
            answered = true;
            yield message;
          }
        } catch (error) {
          if (answered || !refused(error)) throw error;
          yield* (await reopen()).message;
        }
      };
      return { ...response, message: messages() } as StreamResponse;
    };
  }
}

/** Shortens a wait at random by up to one half, so that clients do not come back all at once. */
function jitter(wait: number): number {
  return wait * (1 - Math.random() / 2);
}
