import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { connect } from "node:tls";
import { Http2SessionManager } from "@connectrpc/connect-node";

import { HodeiError } from "../errors.js";
import type { Config } from "./config.js";
import { limit, pinnedCA, security } from "./security.js";

const PING_INTERVAL = 15_000;
const PING_TIMEOUT = 10_000;
/** How much of what is read may be on its way: with the default, a long road would make logs slow. */
const WINDOW = 8 << 20;

/**
 * The HTTP/2 connection to one server, made again when it breaks, from the files as they are then. Its pings find out when the other
 * end is gone without a word.
 */
export class Sessions {
  readonly authority: string;
  readonly #manager: Http2SessionManager;
  readonly #config: Config & { url: string };
  readonly #wide = new WeakSet<ClientHttp2Session>();
  #ca: Promise<string> | undefined;
  #pinned: string | undefined;
  #closed = false;
  /** Whether the server has ever answered. */
  reached = false;

  constructor(config: Config & { url: string }) {
    this.#config = config;
    this.#manager = new Http2SessionManager(
      config.url,
      { pingIntervalMs: PING_INTERVAL, pingTimeoutMs: PING_TIMEOUT, pingIdleConnection: false },
      {
        settings: { initialWindowSize: WINDOW, enablePush: false },
        createConnection: () => {
          const socket = connect({
            ...security(this.#config),
            ...(this.#pinned && { ca: this.#pinned, allowPartialTrustChain: true }),
          });
          limit(socket);
          return socket;
        },
      },
    );
    this.authority = this.#manager.authority;
  }

  async request(method: string, path: string, headers: OutgoingHttpHeaders, options: object): Promise<ClientHttp2Stream> {
    if (this.#config.caPin && this.#manager.state() !== "open" && this.#manager.state() !== "idle") {
      // For every connection anew: the authority may have been replaced by one that the pinned one has signed.
      this.#ca ??= pinnedCA(this.#config).finally(() => (this.#ca = undefined));
      this.#pinned = await this.#ca;
    }
    if (this.#closed) throw new HodeiError("the client was closed", { code: "canceled" });
    const stream = await this.#manager.request(method, path, headers, options);
    const { session } = stream;
    if (session && !this.#wide.has(session as ClientHttp2Session)) {
      this.#wide.add(session as ClientHttp2Session);
      (session as ClientHttp2Session).setLocalWindowSize(WINDOW);
    }
    stream.once("response", () => (this.reached = true));
    return stream;
  }

  notifyResponseByteRead(stream: ClientHttp2Stream): void {
    this.#manager.notifyResponseByteRead(stream);
  }

  close(): void {
    this.#closed = true;
    this.#manager.abort();
  }
}
