// The page that runs the cases in a browser. The driver calls runCase.
import { Client } from "../src/web.js";
import { runCase, type Case, type Report, type Settings } from "./interpreter.js";

declare global {
  var hodei: {
    settings: Settings;
    environment: Record<string, string>;
    unhandled: string[];
    runCase(one: Case): Promise<Report>;
  };
}

export function start(settings: Settings, environment: Record<string, string>): void {
  const unhandled: string[] = [];
  addEventListener("unhandledrejection", (event) => unhandled.push(String(event.reason?.stack ?? event.reason)));
  const makeClient = (options: Record<string, string>, variables = environment) => {
    const { HODEI_URL, HODEI_TOKEN, HODEI_NAMESPACE } = variables;
    return new Client({
      ...(HODEI_URL && { url: HODEI_URL }),
      ...(HODEI_TOKEN && { token: HODEI_TOKEN }),
      ...(HODEI_NAMESPACE && { namespace: HODEI_NAMESPACE }),
      ...options,
    });
  };
  globalThis.hodei = {
    settings,
    environment,
    unhandled,
    runCase: (one) => runCase({ settings, makeClient }, one),
  };
}
