import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { parse } from "smol-toml";

import { ConfigurationError } from "../errors.js";

/** How to reach a server, and as whom. Certificates and keys are paths of PEM files. */
export interface Config {
  /** The address, for example "https://hodei.example.com:7443". */
  url?: string | undefined;
  /** The file with the server's CA. */
  ca?: string | undefined;
  /** "sha256:" and the hash of a public key: the server is known by a CA with this key, and `ca` is not looked at. */
  caPin?: string | undefined;
  /** The file with the client certificate. */
  cert?: string | undefined;
  /** The file with its key; may be the same. */
  key?: string | undefined;
  /** An API token, or an access token, which is used as it is. */
  token?: string | undefined;
  /** A file with what `token` would be. It is read again whenever a fresh access token is needed. */
  tokenFile?: string | undefined;
  /** The namespace of jobs and lists that do not name one. */
  namespace?: string | undefined;
  /** The name of the context that the values came from; empty for none. */
  context?: string | undefined;
}

/** Variables of the environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

interface File {
  path: string;
  current: string;
  contexts: Record<string, Config>;
}

const FIELDS: Record<string, keyof Config | undefined> = {
  url: "url",
  ca: "ca",
  cert: "cert",
  key: "key",
  namespace: "namespace",
  ca_pin: "caPin",
  token_file: "tokenFile",
  // Of a login, which the command renews.
  login: undefined,
  renewable_until: undefined,
};

/**
 * Returns how to reach the server. What the call says wins, then the variables HODEI_URL, HODEI_CA, HODEI_CA_PIN, HODEI_CERT, HODEI_KEY,
 * HODEI_TOKEN, HODEI_TOKEN_FILE and HODEI_NAMESPACE, then the context that the call or HODEI_CONTEXT names, then the current one of
 * $XDG_CONFIG_HOME/hodei/config.toml. A token replaces a certificate that comes from further away, and the other way round.
 *
 * @example
 * ```ts
 * const { url, context } = resolveConfig();
 * ```
 */
export function resolveConfig(options: Config = {}, environment: Environment = process.env): Config & { url: string } {
  const file = readContexts(environment);
  const name = options.context || environment["HODEI_CONTEXT"] || file.current;
  const found = Object.hasOwn(file.contexts, name) ? file.contexts[name] : undefined;
  if (name && !found) {
    throw wrong(`there is no context "${name}" in ${file.path}; \`hodei context list\` shows those that are there`);
  }
  let config: Config = { ...found, context: name };
  const url = options.url || environment["HODEI_URL"];
  if (url && url !== config.url) config = { ...config, url, context: "" };
  const variables: Config = {
    ca: environment["HODEI_CA"],
    caPin: environment["HODEI_CA_PIN"],
    cert: environment["HODEI_CERT"],
    key: environment["HODEI_KEY"],
    token: environment["HODEI_TOKEN"],
    tokenFile: environment["HODEI_TOKEN_FILE"],
    namespace: environment["HODEI_NAMESPACE"],
  };
  config = identify(identify(config, variables), options);
  if (!config.url) {
    throw wrong(
      "no server is configured; start one with `hodei dev`, log in to one with `hodei login`, or set HODEI_URL and HODEI_CA, " +
        "and HODEI_TOKEN, or HODEI_CERT and HODEI_KEY",
    );
  }
  return config as Config & { url: string };
}

/**
 * Takes over what a nearer place says. How the server is known, and how the caller is, are each said by one place: a token for one user
 * beside the certificate of another would leave open who calls.
 */
function identify(farther: Config, nearer: Config): Config {
  const config = { ...farther, namespace: nearer.namespace || farther.namespace };
  if (nearer.ca || nearer.caPin) {
    config.ca = nearer.ca;
    config.caPin = nearer.caPin;
  }
  const token = nearer.token || nearer.tokenFile;
  const certificate = nearer.cert || nearer.key;
  if (token || certificate) {
    config.token = nearer.token;
    config.tokenFile = nearer.tokenFile;
    config.cert = certificate ? nearer.cert || farther.cert : undefined;
    config.key = certificate ? nearer.key || farther.key : undefined;
  }
  return config;
}

/** Reads the file of contexts; one that is not there is empty. An unknown key is an error. */
function readContexts(environment: Environment): File {
  const home = environment["XDG_CONFIG_HOME"] || join(environment["HOME"] || homedir(), ".config");
  const file: File = { path: join(home, "hodei", "config.toml"), current: "", contexts: {} };
  let text: string;
  try {
    text = readFileSync(file.path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return file;
    throw wrong(`reading the contexts: ${(error as Error).message}`, error);
  }
  let table: Record<string, unknown>;
  try {
    table = parse(text);
  } catch (error) {
    throw wrong(`${file.path} is not valid TOML: ${(error as Error).message}`, error);
  }
  const strange = (key: string) => wrong(`${file.path} has a key that is not known, or no value for it: ${key}`);
  for (const [key, value] of Object.entries(table)) {
    if (key === "current" && typeof value === "string") file.current = value;
    else if (key === "contexts" && isTable(value)) {
      for (const [name, fields] of Object.entries(value)) {
        if (!isTable(fields)) throw strange(`contexts.${name}`);
        const context: Config = {};
        for (const [field, text] of Object.entries(fields)) {
          if (!Object.hasOwn(FIELDS, field) || typeof text !== "string") throw strange(`contexts.${name}.${field}`);
          const ours = FIELDS[field];
          if (ours) context[ours] = text;
        }
        file.contexts[name] = context;
      }
    } else throw strange(key);
  }
  return file;
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function wrong(message: string, cause?: unknown): ConfigurationError {
  return new ConfigurationError(message, { code: "invalid_argument", cause });
}
