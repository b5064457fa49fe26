import { ConfigurationError } from "./errors.js";

/** How an access token begins. What begins so is used as it is. */
const ACCESS_TOKEN = "eyJ";
/** How long after a failed exchange the next one is tried, while the token is still good. */
const EXCHANGE_PAUSE = 10_000;
/** How long a token counts as good when the clocks differ so much that it seems to end before. The server says when it does. */
const LEAST_LIFE = 60_000;
const MAX_TOKEN_BYTES = 16 << 10;

/** Trades an API token for an access token. */
export type Exchange = (apiToken: string) => Promise<{ value: string; expires: number }>;

/** The secret of an API token, or an access token, or where to get one. */
export type Secret = string | (() => string | Promise<string>);

/** Gets access tokens for calls: one exchange serves all calls that wait for it. */
export class AccessToken {
  readonly #secret: Secret;
  readonly #exchange: Exchange;
  #value = "";
  #renewAt = 0;
  #expires = 0;
  #running: Promise<string> | undefined;

  constructor(secret: Secret, exchange: Exchange) {
    this.#secret = secret;
    this.#exchange = exchange;
    // A token that is none is an error when the client is made, and not with the first call.
    if (typeof secret === "string") this.#secret = cleanToken(secret, "the token (HODEI_TOKEN)");
  }

  /** A token that is good now. When two thirds of its life are over, a fresh one is made for later calls. */
  get(): Promise<string> {
    const now = Date.now();
    if (now < this.#renewAt) return Promise.resolve(this.#value);
    const running = (this.#running ??= this.#renew(now).finally(() => (this.#running = undefined)));
    if (now >= this.#expires) return running;
    running.catch(() => {}); // the token that there is will do
    return Promise.resolve(this.#value);
  }

  /** Forgets a token that the server has refused. Returns whether another one can be had. */
  discard(value: string): boolean {
    if (this.#value === value) this.#renewAt = this.#expires = 0;
    return !(typeof this.#secret === "string" && this.#secret.startsWith(ACCESS_TOKEN));
  }

  async #renew(start: number): Promise<string> {
    try {
      const secret =
        typeof this.#secret === "string" ? this.#secret : cleanToken(await this.#secret(), "what should be the token");
      // An access token that comes from somewhere else is renewed there: look again soon.
      const { value, expires } = secret.startsWith(ACCESS_TOKEN)
        ? { value: secret, expires: start + LEAST_LIFE }
        : await this.#exchange(secret);
      const life = Math.max(expires - start, LEAST_LIFE);
      this.#value = value;
      this.#renewAt = start + (secret === value ? EXCHANGE_PAUSE : (life * 2) / 3);
      this.#expires = start + life;
      return value;
    } catch (error) {
      if (start < this.#expires) this.#renewAt = Math.min(start + EXCHANGE_PAUSE, this.#expires);
      throw error;
    }
  }
}

/** Takes away what surrounds a token, and refuses what is none before it is sent anywhere. No message repeats it. */
export function cleanToken(text: string, where: string): string {
  const token = text.trim();
  if (!token) throw new ConfigurationError(`${where} is empty`, { code: "invalid_argument" });
  if (token.length > MAX_TOKEN_BYTES || /[^!-~]/.test(token)) {
    throw new ConfigurationError(`${where} is not one token: it is too long, or has spaces or special characters`, {
      code: "invalid_argument",
    });
  }
  return token;
}
