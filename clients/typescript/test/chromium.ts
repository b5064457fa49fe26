// Starts the browser that pages are tried in.
import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type BrowserContext } from "playwright-core";

/** Gives a browser to a function. It knows servers by these CAs too, and refuses other wrong certificates as usual. */
export async function withBrowser(caFiles: string[], use: (context: BrowserContext) => Promise<void>): Promise<void> {
  const trusted = caFiles.map((path) => {
    const key = new X509Certificate(readFileSync(path)).publicKey.export({ type: "spki", format: "der" });
    return createHash("sha256").update(key).digest("base64");
  });
  const profile = mkdtempSync(join(tmpdir(), "hodei-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      `--ignore-certificate-errors-spki-list=${trusted.join(",")}`,
    ],
  });
  try {
    await use(context);
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
}
