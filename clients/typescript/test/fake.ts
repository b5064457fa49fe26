// A server in this process, for what a real one does not do when it is asked to.
import { Code, ConnectError, createRouterTransport, type ServiceImpl } from "@connectrpc/connect";

import { AuthService, JobService, LogService } from "../src/api.js";
import { BaseClient } from "../src/client.js";
import type { Platform } from "../src/connection.js";

export interface Fake {
  jobs?: Partial<ServiceImpl<typeof JobService>>;
  logs?: Partial<ServiceImpl<typeof LogService>>;
  auth?: Partial<ServiceImpl<typeof AuthService>>;
}

class FakeClient extends BaseClient {}

/** A client of a server that does what is given. */
export function fakeClient(fake: Fake, platform: Partial<Platform> = {}): BaseClient {
  return new FakeClient({
    url: "https://fake:1",
    namespace: "",
    secret: undefined,
    timeoutMs: undefined,
    reached: () => true,
    diagnose: (error) => {
      const { rawMessage, message } = ConnectError.from(error);
      return { kind: /broken|missing EndStream/.test(message) ? "broken" : "other", message: rawMessage };
    },
    transport: (interceptors) =>
      createRouterTransport(
        (router) => {
          router.service(JobService, fake.jobs ?? {});
          router.service(LogService, fake.logs ?? {});
          router.service(AuthService, fake.auth ?? {});
        },
        { transport: { interceptors } },
      ),
    close: () => {},
    ...platform,
  });
}

export function unavailable(): ConnectError {
  return new ConnectError("the server stops", Code.Unavailable);
}
