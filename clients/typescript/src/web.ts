/**
 * The client of Hodei Jobs for web pages. It uses fetch and needs nothing of Node.
 *
 * @packageDocumentation
 */
import { ConnectError } from "@connectrpc/connect";

import { BaseClient } from "./client.js";
import { ConfigurationError } from "./errors.js";
import { CUT_OFF, fetchTransport } from "./fetch.js";
import type { Secret } from "./token.js";

export * from "./common.js";

/** How a page reaches the server, and as whom. */
export interface ClientOptions {
  /** The address of the server, for example "https://hodei.example.com:7443"; the page's origin when not set. */
  url?: string | undefined;
  /**
   * An API token, an access token, or a function that gets one and is called again when a fresh one is needed. Whoever can read the page
   * can read a token in it: give pages access tokens, which end soon, or API tokens that permit little.
   */
  token?: Secret | undefined;
  /** The namespace of jobs and lists that do not name one; "default" when not set. */
  namespace?: string | undefined;
  /** How long a call may take in milliseconds, all its tries together; any time when not set. Waiting and following have no limit. */
  timeoutMs?: number | undefined;
  /** Makes the requests instead of the global fetch. */
  fetch?: typeof globalThis.fetch | undefined;
}

/**
 * A client for web pages.
 *
 * @example
 * ```ts
 * import { Client } from "@hodei/client/web";
 *
 * const client = new Client({ token: () => fetch("/session/hodei-token").then((response) => response.text()) });
 * const job = await client.submit("make test");
 * for await (const line of job.logs({ follow: true })) output.append(`${line}\n`);
 * ```
 */
export class Client extends BaseClient {
  constructor(options: ClientOptions = {}) {
    const url = originOf(options.url ?? globalThis.location?.origin);
    let reached = false;
    super({
      url,
      namespace: options.namespace ?? "",
      secret: options.token || undefined,
      timeoutMs: options.timeoutMs,
      reached: () => reached,
      diagnose: (error) => {
        const { rawMessage, cause } = ConnectError.from(error);
        // A browser does not tell why: the network, TLS, or CORS.
        return cause instanceof TypeError || rawMessage === CUT_OFF || /^premature/.test(rawMessage)
          ? {
              kind: "broken",
              message:
                `no server answers at ${url}: ${rawMessage}; is it running, does this browser trust its certificate, ` +
                `and does it allow pages of this origin (\`hodei server --cors-origin\`)?`,
            }
          : { kind: "other", message: `the call to ${url} failed: ${rawMessage}` };
      },
      transport: (interceptors) =>
        fetchTransport(url, interceptors, async (...request) => {
          const response = await (options.fetch ?? fetch)(...request);
          reached = true;
          return response;
        }),
      close: () => {},
    });
  }
}

function originOf(address: string | undefined): string {
  let url: URL | undefined;
  try {
    url = new URL(address!);
  } catch {
    // The error below says more.
  }
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new ConfigurationError(
      address === undefined
        ? "nothing says which server: give the client its url, for example https://hodei.example.com:7443"
        : `"${address}" is not the address of a server; it looks like https://hodei.example.com:7443`,
      { code: "invalid_argument" },
    );
  }
  return url.href.replace(/\/$/, "");
}
