import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { Client, ConfigurationError, resolveConfig, type Config } from "../src/node.js";

const home = mkdtempSync(join(tmpdir(), "hodei-config-"));
after(() => rmSync(home, { recursive: true }));
mkdirSync(join(home, "hodei"));

function write(text: string): void {
  writeFileSync(join(home, "hodei", "config.toml"), text);
}

const FILE = `
current = 'dev'
[contexts.dev]
url = 'https://dev:7443'
ca = 'dev-ca.pem'
cert = 'dev.pem'
key = 'dev-key.pem'
namespace = 'devs'
login = 'lgn_1'
renewable_until = '2030-01-01T00:00:00Z'
[contexts.prod]
url = 'https://prod:7443'
ca_pin = 'sha256:00'
token_file = '/prod-token'
`;

const DEV = {
  url: "https://dev:7443", ca: "dev-ca.pem", cert: "dev.pem", key: "dev-key.pem", namespace: "devs", context: "dev",
};

for (const { name, options, environment, want } of [
  { name: "the current context", want: DEV },
  {
    name: "the context that a variable names",
    environment: { HODEI_CONTEXT: "prod" },
    want: { url: "https://prod:7443", caPin: "sha256:00", tokenFile: "/prod-token", context: "prod" },
  },
  {
    name: "the context that the call names",
    options: { context: "dev" },
    environment: { HODEI_CONTEXT: "prod" },
    want: DEV,
  },
  {
    name: "a token replaces the certificate of a farther place",
    environment: { HODEI_TOKEN: "t" },
    want: { ...DEV, token: "t", cert: undefined, key: undefined },
  },
  {
    name: "a certificate replaces the token of a farther place",
    options: { cert: "c", key: "k" },
    environment: { HODEI_TOKEN: "t" },
    want: { ...DEV, cert: "c", key: "k" },
  },
  {
    name: "a pin replaces a CA",
    environment: { HODEI_CA_PIN: "sha256:11" },
    want: { ...DEV, ca: undefined, caPin: "sha256:11" },
  },
  {
    name: "a CA replaces a pin",
    options: { ca: "x.pem", context: "prod" },
    want: { url: "https://prod:7443", ca: "x.pem", tokenFile: "/prod-token", context: "prod" },
  },
  {
    name: "another address is no longer the context",
    environment: { HODEI_URL: "https://other:1", HODEI_NAMESPACE: "web" },
    want: { ...DEV, url: "https://other:1", namespace: "web", context: "" },
  },
  {
    name: "what the call says wins",
    options: { url: "https://call:1", token: "c", namespace: "n" },
    environment: { HODEI_URL: "https://env:1", HODEI_TOKEN: "e", HODEI_NAMESPACE: "m" },
    want: { ...DEV, url: "https://call:1", token: "c", namespace: "n", context: "", cert: undefined, key: undefined },
  },
] as { name: string; options?: Config; environment?: Record<string, string>; want: Config }[]) {
  test(name, () => {
    write(FILE);
    const got = resolveConfig(options, { XDG_CONFIG_HOME: home, ...environment });
    const keys = ["url", "ca", "caPin", "cert", "key", "token", "tokenFile", "namespace", "context"] as const;
    for (const key of keys) assert.equal(got[key] || undefined, want[key] || undefined, key);
  });
}

for (const { name, text = FILE, options, message } of [
  { name: "no server", text: "", message: /HODEI_URL/ },
  { name: "a context that is not there", options: { context: "nope" }, message: /"nope".*hodei context list/s },
  { name: "a key that is not known", text: "[contexts.dev]\nurll = 'x'\n", message: /contexts\.dev\.urll/ },
  { name: "a file that is no TOML", text: "current = \n", message: /not valid TOML/ },
  { name: "an address that is none", options: { url: "not an address" }, message: /"not an address"/ },
  { name: "an address without TLS", options: { url: "http://host:1" }, message: /"http:\/\/host:1"/ },
  { name: "a pin that is none", options: { caPin: "md5:1" }, message: /md5:1/ },
  { name: "a CA that is not there", options: { ca: "/no/such.pem" }, message: /no\/such\.pem/ },
  { name: "a certificate without its key", text: "", options: { url: "https://h:1", cert: "package.json" }, message: /cert and key/ },
  { name: "a token with a space in it", text: "", options: { url: "https://h:1", token: "two words" }, message: /not one token/ },
  { name: "a file of a token that is not there", text: "", options: { url: "https://h:1", tokenFile: "/no/token" }, message: /no\/token/ },
]) {
  test(`an error: ${name}`, () => {
    write(text);
    const environment = { XDG_CONFIG_HOME: home };
    const make = () => new Client({ url: undefined, ...options, environment });
    assert.throws(make, (error) => error instanceof ConfigurationError && message.test(error.message) && !/two words/.test(error.message));
  });
}
