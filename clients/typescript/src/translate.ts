import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";

import {
  FailedPreconditionError,
  HodeiError,
  InvalidArgumentError,
  NotFoundError,
  PermissionDeniedError,
  QuotaExceededError,
  UnauthenticatedError,
  UnavailableError,
  VersionSkewError,
  WaitTimeoutError,
  type ErrorCode,
  type ErrorFields,
} from "./errors.js";
import { VERSION } from "./version.js";

/** What is known of a call that failed on the way to the server. */
export interface Diagnosis {
  /**
   * "broken": the same call may succeed on a new connection. "refused": it will not, the other end is not the one that was meant.
   * "unproven": the other end did not take the client's certificate. "other": it was not the connection.
   */
  kind: "broken" | "refused" | "unproven" | "other";
  message: string;
}

/** Says why a call failed that the server did not answer. */
export type Diagnose = (error: unknown) => Diagnosis;

/** Whether the server said this, and not this side: what came from it has the headers of the answer. */
export function isRemote(error: unknown): error is ConnectError {
  return error instanceof ConnectError && error.metadata.has("content-type");
}

/** An error of this package that was thrown inside of a call: Connect wraps it. */
export function ownError(error: unknown): HodeiError | undefined {
  return [error, (error as Error | undefined)?.cause].find((one) => one instanceof HodeiError) as HodeiError | undefined;
}

/** What was wrong at first: Connect's error around it says no more. */
function rootOf(error: unknown): unknown {
  let root = error;
  for (let depth = 0; depth < 8 && root instanceof Error && root.cause !== undefined; depth++) root = root.cause;
  return root;
}

/** The code as the protocol writes it: "not_found" for NotFound. */
function nameOf(code: Code): ErrorCode {
  return (Code[code] ?? "Unknown").replace(/(?!^)([A-Z])/g, "_$1").toLowerCase() as ErrorCode;
}

/** The error of a code, also of one item of a batch. */
export function errorOf(code: string, message: string, fields: ErrorFields = {}): HodeiError {
  const all = { ...fields, code: code as ErrorCode };
  switch (fields.reason === "VERSION_SKEW" ? "unimplemented" : code) {
    case "not_found":
      return new NotFoundError(message, all);
    case "invalid_argument":
      return new InvalidArgumentError(message, all);
    case "failed_precondition":
      return new FailedPreconditionError(message, all);
    case "permission_denied":
      return new PermissionDeniedError(message, all);
    case "unauthenticated":
      return new UnauthenticatedError(message, all);
    case "resource_exhausted":
      return new QuotaExceededError(message, all);
    case "unavailable":
      return new UnavailableError(message, all);
    case "unimplemented":
      return new VersionSkewError(message, all);
    case "deadline_exceeded":
      return new WaitTimeoutError(message, all);
  }
  return new HodeiError(message, all);
}

/** Makes an error of this package of what a call threw. */
export function translate(error: unknown, url: string, diagnose: Diagnose): HodeiError {
  const own = ownError(error);
  if (own) return own;
  if (!isRemote(error)) {
    const { kind, message } = diagnose(error);
    const code =
      kind === "unproven" ? "unauthenticated" : kind === "other" ? nameOf(ConnectError.from(error).code) : "unavailable";
    return errorOf(code, message, { cause: rootOf(error) });
  }
  const { reason, retryAfter } = readDetails(error);
  const fields = { reason, retryAfter };
  const me = `this client (${VERSION})`;
  // Without a reason the answer is not the server's own: its errors all have one.
  if (!reason && /^unsupported content type/.test(error.rawMessage)) {
    return new VersionSkewError(
      `what answers at ${url} is not the API of Hodei: ${error.rawMessage}; check the address, or whether the server is older than ${me}`,
      { ...fields, code: "unimplemented" },
    );
  }
  if (!reason && error.code === Code.Unimplemented) {
    return new VersionSkewError(
      `the server at ${url} does not know this call: it is older than ${me}, or is no server of Hodei (${error.rawMessage})`,
      { ...fields, code: "unimplemented" },
    );
  }
  const http = /^HTTP \d+$/.test(error.rawMessage);
  return errorOf(nameOf(error.code), http ? `${url} answers with ${error.rawMessage}` : error.rawMessage, fields);
}

/** Reads google.rpc.ErrorInfo and RetryInfo. They are small, and their generated code is not. */
function readDetails(error: ConnectError): { reason: string; retryAfter: number | undefined } {
  let reason = "";
  let retryAfter: number | undefined;
  for (const detail of error.details) {
    if (!("type" in detail)) continue;
    try {
      if (detail.type === "google.rpc.ErrorInfo") {
        eachField(detail.value, (field, reader) => (field === 1 ? ((reason = reader.string()), true) : false));
      } else if (detail.type === "google.rpc.RetryInfo") {
        let ms = 0;
        eachField(detail.value, (field, reader) => {
          if (field !== 1) return false;
          eachField(reader.bytes(), (part, inner) => {
            if (part === 1) ms += Number(inner.int64()) * 1000;
            else if (part === 2) ms += inner.int32() / 1e6;
            else return false;
            return true;
          });
          return true;
        });
        retryAfter = ms;
      }
    } catch {
      // The message of the error says enough.
    }
  }
  return { reason, retryAfter };
}

function eachField(bytes: Uint8Array, read: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type]: [number, WireType] = reader.tag();
    if (!read(field, reader)) reader.skip(type, field);
  }
}
