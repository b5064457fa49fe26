import {
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethodStreaming,
  type DescMethodUnary,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createContextValues,
  type ContextValues,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import {
  createEnvelopeReadableStream,
  createMethodUrl,
  encodeEnvelope,
  runStreamingCall,
  runUnaryCall,
} from "@connectrpc/connect/protocol";
import {
  endStreamFlag,
  endStreamFromJson,
  errorFromJson,
  requestHeader,
  validateResponse,
} from "@connectrpc/connect/protocol-connect";

/** What is said of a stream that ends without its last message. */
export const CUT_OFF = "the stream was cut off";

/**
 * Connect's protocol over fetch, with messages in binary form only. The transport of @connectrpc/connect-web can do JSON too, which
 * would be a sixth of a page's script.
 */
export function fetchTransport(baseUrl: string, interceptors: Interceptor[], fetch: typeof globalThis.fetch): Transport {
  const send = (url: string, headers: Headers, signal: AbortSignal, body: Uint8Array) =>
    // A redirect leads to something that is not this API: to a page that asks for a login, say.
    fetch(url, { method: "POST", redirect: "error", headers, signal, body: body as Uint8Array<ArrayBuffer> });

  const requestOf = <M extends DescMethodUnary | DescMethodStreaming>(
    method: M,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    contextValues: ContextValues | undefined,
  ) => ({
    service: method.parent,
    method,
    requestMethod: "POST",
    url: createMethodUrl(baseUrl, method),
    header: requestHeader(method.methodKind, true, timeoutMs, header, false),
    contextValues: contextValues ?? createContextValues(),
  });

  return {
    unary: (method, signal, timeoutMs, header, message, contextValues) =>
      runUnaryCall({
        interceptors,
        ...(signal && { signal }),
        ...(timeoutMs && { timeoutMs }),
        req: { ...requestOf(method, timeoutMs, header, contextValues), stream: false, message },
        next: async (request) => {
          const body = toBinary(method.input, request.message);
          const response = await send(request.url, request.header, request.signal, body);
          const { status, headers } = response;
          const { isUnaryError, unaryError } = validateResponse(method.methodKind, true, status, headers);
          if (isUnaryError) throw errorFromJson(await response.json(), headers, unaryError);
          const answer = new Uint8Array(await response.arrayBuffer());
          const { service } = request;
          return { service, method, stream: false, header: headers, trailer: new Headers(), message: fromBinary(method.output, answer) };
        },
      }),

    stream: (method, signal, timeoutMs, header, input, contextValues) =>
      runStreamingCall({
        interceptors,
        ...(signal && { signal }),
        ...(timeoutMs && { timeoutMs }),
        req: { ...requestOf(method, timeoutMs, header, contextValues), stream: true, message: input },
        next: async (request) => {
          const first = await request.message[Symbol.asyncIterator]().next();
          if (first.done) throw new ConnectError("a stream begins with one message", Code.InvalidArgument);
          const body = encodeEnvelope(0, toBinary(method.input, first.value));
          const response = await send(request.url, request.header, request.signal, body);
          validateResponse(method.methodKind, true, response.status, response.headers);
          const message = messagesOf(method.output, response);
          const { service } = request;
          return { service, method, stream: true, header: response.headers, trailer: new Headers(), message };
        },
      }),
  };
}

async function* messagesOf<O extends DescMessage>(type: O, response: Response): AsyncGenerator<MessageShape<O>> {
  const reader = createEnvelopeReadableStream(response.body!).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ConnectError(CUT_OFF, Code.Unavailable);
    if (!(value.flags & endStreamFlag)) {
      yield fromBinary(type, value.data);
      continue;
    }
    const { error } = endStreamFromJson(value.data);
    if (!error) return;
    response.headers.forEach((text, name) => error.metadata.append(name, text));
    throw error;
  }
}
