import { ConnectError } from "@connectrpc/connect";

import type { Diagnosis } from "../translate.js";
import type { Config } from "./config.js";
import { PinError } from "./security.js";

/** Says why the server was not reached, and what to do. */
export function diagnose(error: unknown, config: Config & { url: string }): Diagnosis {
  const { url, ca, cert } = config;
  const chain: (Error & { code?: unknown })[] = [];
  for (let e: unknown = error; e instanceof Error && !chain.includes(e); e = e.cause) chain.push(e);
  const codes = chain.map((e) => e.code).filter((code) => typeof code === "string");
  const has = (pattern: RegExp) => codes.some((code) => pattern.test(code));
  const said = ConnectError.from(chain.at(-1) ?? error).rawMessage;

  const pin = chain.find((e) => e instanceof PinError);
  if (pin) {
    return {
      kind: "refused",
      message:
        `the server at ${url} is another one than ${config.caPin} names: ${pin.message}; ` +
        "it is the wrong server, somebody is in between, or the pin is old",
    };
  }
  if (has(/^ERR_TLS_CERT_ALTNAME_INVALID$/)) {
    return {
      kind: "refused",
      message: `the server's certificate is not for the name in ${url}: ${said}; start it with --host for that name`,
    };
  }
  if (has(/^(CERT_HAS_EXPIRED|CERT_NOT_YET_VALID)$/)) {
    return { kind: "refused", message: `the certificate of the server at ${url} is not valid: ${said}` };
  }
  if (has(/^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_CA|ERR_TLS_)/)) {
    return {
      kind: "refused",
      message:
        `the server at ${url} has a certificate of another CA than ${config.caPin || ca || "those that this machine trusts"} ` +
        `(${said}); set ca (HODEI_CA) to ca.pem of that server, or caPin (HODEI_CA_PIN)`,
    };
  }
  if (has(/^ERR_SSL_.*ALERT/)) {
    const proof = cert
      ? `the client certificate ${cert}: ${said}; it may have expired or belong to another server; \`hodei login\` gets another one`
      : `the connection: ${said}; it may want a client certificate (log in with \`hodei login\`, or set HODEI_CERT and HODEI_KEY)`;
    return {
      kind: has(/CERTIFICATE|UNKNOWN_CA/) ? "unproven" : "refused",
      message: `the server at ${url} refused ${proof}`,
    };
  }
  if (has(/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT)$/)) {
    return { kind: "broken", message: `no server answers at ${url}: ${said}; is it running? \`hodei dev\` starts one` };
  }
  const { rawMessage } = ConnectError.from(error);
  if (has(/^(E[A-Z]+|ERR_HTTP2_\w+|ERR_STREAM_\w+|ERR_SSL_\w+)$/) || BROKEN.test(rawMessage)) {
    return { kind: "broken", message: `the connection to ${url} broke: ${said}` };
  }
  return { kind: "other", message: `the call to ${url} failed: ${rawMessage}` };
}

/** What Connect says without an error of Node's when a stream or a connection ends in the middle. */
const BROKEN = /^http\/2 stream closed|missing EndStreamResponse|^PING timed out|premature(ly)?|^connection |promised \d+ bytes/;
