import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { connect, createSecureContext, type ConnectionOptions, type TLSSocket } from "node:tls";

import { wrong, type Config } from "./config.js";

/** The time for a connection and its handshake. */
export const CONNECT_LIMIT = 10_000;

/** Says that a server is not the one that the pin names. */
export class PinError extends Error {}

/** How both sides of a connection are known, from the files as they are now: the certificate of a login is replaced now and then. */
export function security(config: Config & { url: string }): ConnectionOptions {
  const host = new URL(config.url).hostname.replace(/^\[|\]$/g, "");
  const options: ConnectionOptions = {
    host,
    port: Number(new URL(config.url).port || 443),
    servername: isIP(host) ? "" : host,
    minVersion: "TLSv1.3",
    ALPNProtocols: ["h2"],
  };
  if (config.ca && !config.caPin) options.ca = read(config.ca, "the server's CA");
  if (config.cert || config.key) {
    options.cert = read(config.cert, "the client certificate");
    options.key = read(config.key, "the key of the client certificate");
  }
  return options;
}

/** Finds what is wrong with the settings before anything is sent. */
export function checkSecurity(config: Config & { url: string }): void {
  if (config.caPin && !/^sha256:[0-9a-f]{64}$/.test(config.caPin)) {
    throw wrong(
      `the CA pin "${config.caPin}" is not sha256: and 64 hexadecimal digits; \`hodei admin authority show\` prints the right one`,
    );
  }
  const options = security(config);
  if (options.ca && !/-----BEGIN CERTIFICATE-----/.test(String(options.ca))) {
    throw wrong(`${config.ca} holds no PEM certificate`);
  }
  try {
    createSecureContext(options);
  } catch (error) {
    throw wrong(
      `the client certificate ${config.cert}, its key ${config.key} or the CA ${config.ca} cannot be used: ${(error as Error).message}`,
      error,
    );
  }
}

function read(path: string | undefined, what: string): Buffer {
  if (!path) throw wrong("a client certificate needs both of its files: cert and key (HODEI_CERT and HODEI_KEY)");
  try {
    return readFileSync(path);
  } catch (error) {
    throw wrong(`reading ${what}: ${(error as Error).message}`, error);
  }
}

/**
 * Gets the certificate of the CA with the pinned key from the chain that the server shows. It is then used as the only CA, and the
 * ordinary verification does the rest: nothing is sent on the connection that shows it.
 */
export function pinnedCA(config: Config & { url: string }): Promise<string> {
  const { cert: _, key: __, ...options } = security(config);
  return new Promise((resolve, reject) => {
    const socket: TLSSocket = connect({ ...options, rejectUnauthorized: false }, () => {
      const seen: string[] = [];
      for (let c = socket.getPeerX509Certificate()?.issuerCertificate; c; c = c.issuerCertificate) {
        if (!c.ca) continue;
        if (pinOf(c) === config.caPin) {
          resolve(c.toString());
          socket.destroy();
          return;
        }
        seen.push(pinOf(c));
      }
      socket.destroy(new PinError(seen.length ? `it shows the CA ${seen.join(" and ")}` : "it shows no CA"));
    });
    limit(socket);
    socket.on("error", reject);
  });
}

/** What names the key of a CA. */
export function pinOf(certificate: X509Certificate): string {
  const key = certificate.publicKey.export({ type: "spki", format: "der" });
  return `sha256:${createHash("sha256").update(key).digest("hex")}`;
}

/** Bounds the time until a socket can be used. */
export function limit(socket: TLSSocket): void {
  const timer = setTimeout(
    () => socket.destroy(Object.assign(new Error(`no answer within ${CONNECT_LIMIT} ms`), { code: "ETIMEDOUT" })),
    CONNECT_LIMIT,
  );
  const stop = () => clearTimeout(timer);
  socket.once("secureConnect", stop).once("close", stop);
}
