/**
 * The client of Hodei Jobs for Node.
 *
 * @packageDocumentation
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createConnectTransport } from "@connectrpc/connect-node";

import { BaseClient } from "./client.js";
import { resolveConfig, wrong, type Config, type Environment } from "./node/config.js";
import { diagnose } from "./node/diagnose.js";
import { checkSecurity } from "./node/security.js";
import { Sessions } from "./node/sessions.js";
import type { Secret } from "./token.js";

export * from "./common.js";
export { resolveConfig } from "./node/config.js";
export type { Config, Environment } from "./node/config.js";
export { current } from "./node/current.js";
export type { CurrentJob } from "./node/current.js";

/** The largest answer that is read. */
const MAX_ANSWER = 64 << 20;

/** How to reach the server, and as whom. What is not set comes from the environment, or from the settings of the `hodei` command. */
export interface ClientOptions extends Omit<Config, "token"> {
  /** An API token, an access token, or a function that gets one and is called again when a fresh one is needed. */
  token?: Secret | undefined;
  /** How long a call may take in milliseconds, all its tries together; any time when not set. Waiting and following have no limit. */
  timeoutMs?: number | undefined;
  /** The variables that are looked at; those of the process when not set. */
  environment?: Environment | undefined;
}

/**
 * A client for Node. Without options it uses the HODEI_ variables and the settings of the `hodei` command. It connects with the first
 * call. A client certificate of `hodei login` is renewed by the `hodei` command, not by this client, which reads the files again with
 * every new connection: programs that run for long use an API token.
 *
 * @example
 * ```ts
 * import { Client } from "@hodei/client/node";
 *
 * const client = new Client();
 * const job = await client.run(["echo", "hello"]);
 * for await (const line of job.logs()) console.log(line.text);
 * await client.close();
 * ```
 */
export class Client extends BaseClient {
  /** The settings that the client uses, without its token. */
  readonly config: Readonly<Omit<Config, "token">>;

  constructor(options: ClientOptions = {}) {
    const { token, timeoutMs, environment, ...given } = options;
    // A function stands for a token that is not known yet.
    const own = { ...given, token: typeof token === "function" ? "(function)" : token };
    const { token: found, ...config } = resolveConfig(own, environment);
    const url = URL.canParse(config.url) ? new URL(config.url) : undefined;
    if (url?.protocol !== "https:" || !url.host) {
      throw wrong(`"${config.url}" is not the address of a server; it looks like https://host:7443`);
    }
    config.url = url.href.replace(/\/$/, "");
    checkSecurity(config);
    const sessions = new Sessions(config);
    const { tokenFile } = config;
    const fromFile = tokenFile ? () => readToken(tokenFile) : undefined;
    fromFile?.();
    super({
      url: config.url,
      namespace: config.namespace ?? "",
      secret: typeof token === "function" ? token : found || fromFile,
      timeoutMs,
      diagnose: (error) => diagnose(error, config),
      reached: () => sessions.reached,
      transport: (interceptors) =>
        createConnectTransport({
          baseUrl: config.url,
          httpVersion: "2",
          interceptors,
          sessionManager: sessions,
          acceptCompression: [],
          readMaxBytes: MAX_ANSWER,
        }),
      close: () => sessions.close(),
      sha256: () => createHash("sha256"),
    });
    this.config = config;
  }
}

function readToken(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw wrong(`reading the token: ${(error as Error).message}`, error);
  }
}
