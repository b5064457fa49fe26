/** The reason of what was still under way when nobody needed it any more. It is made once: an error takes long to make. */
const OVER = Object.freeze(new Error("nobody waits for this any more"));

type Follower = (reason: unknown) => void;

/**
 * A signal that is aborted when one of others is, with its reason, or by itself. Unlike AbortSignal.any it lets go of the others when
 * the work is over: theirs may live as long as the program.
 */
export class Scope {
  readonly #controller = new AbortController();
  readonly #release: (() => void)[] = [];
  readonly signal: AbortSignal = this.#controller.signal;

  constructor(...parents: (AbortSignal | undefined)[]) {
    for (const parent of parents) {
      if (parent) this.#release.push(onAbort(parent, (reason) => this.abort(reason)));
    }
  }

  /** Aborts with what reason returns after so many milliseconds; never without a number. */
  after(ms: number | undefined, reason: () => unknown): this {
    if (ms !== undefined) {
      // Timers do not take more than 31 bits; 24 days are as good as never.
      const timer = setTimeout(() => this.abort(reason()), Math.min(ms, 0x7fffffff));
      this.#release.push(() => clearTimeout(timer));
    }
    return this;
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** Lets go of the other signals, and ends what still runs in this scope. */
  dispose(): void {
    for (const release of this.#release.splice(0)) release();
    this.abort(OVER);
  }
}

const followers = new WeakMap<AbortSignal, Set<Follower>>();

/**
 * Calls a function when a signal is aborted, at once if it is already. Returns what lets go of it. A signal has one listener for all of
 * them: many may follow one, and Node warns of more than ten.
 */
export function onAbort(signal: AbortSignal, follower: Follower): () => void {
  if (signal.aborted) {
    follower(signal.reason);
    return () => {};
  }
  let all = followers.get(signal);
  if (!all) {
    const set = (all = new Set<Follower>());
    signal.addEventListener("abort", () => [...set].forEach((one) => one(signal.reason)), { once: true });
    followers.set(signal, all);
  }
  const set = all;
  set.add(follower);
  return () => set.delete(follower);
}

/**
 * An iterator over what a generator yields, which has a scope and disposes of it at its end. A generator that waits for something does
 * not return before that comes; this one ends its scope first.
 */
export function iterate<T>(
  parent: AbortSignal | undefined,
  generate: (scope: Scope) => AsyncGenerator<T, void, undefined>,
): AsyncIterator<T, void, undefined> {
  const scope = new Scope(parent);
  const items = generate(scope);
  return {
    next: () => items.next(),
    return: () => {
      scope.dispose();
      return items.return();
    },
  };
}

/** Waits, or rejects with the signal's reason. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout>;
  const rest = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  return within(rest, signal).finally(() => clearTimeout(timer));
}

/** Waits for a promise, or rejects with the signal's reason. The promise is left alone. */
export function within<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const release = onAbort(signal, reject);
    promise.then(resolve, reject).finally(release);
  });
}
