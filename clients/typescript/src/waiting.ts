import type { Connection } from "./connection.js";
import { JobState, type Job as JobMessage } from "./gen/hodei/v1/job_pb.js";
import { isTerminal, type Job } from "./job.js";
import { Scope, onAbort } from "./scope.js";

/** How many ids the filter of a watch takes. */
const MAX_IDS = 1000;
/** So many watches may run before further jobs are put to those that do: a connection carries only so many streams. */
const FEW_WATCHES = 4;
/** How long jobs are collected before a watch begins anew with them. */
const COLLECT_MS = 20;
/** A job that was seen so recently is still there: those that have ended are kept for much longer. */
const FRESH_MS = 60_000;

const TERMINAL = Object.values(JobState).filter((state) => typeof state === "number" && isTerminal({ state })) as JobState[];

interface Waiter {
  readonly job: Job;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Waits for the end of many jobs with few watches: those that are asked for at the same time share one. */
export class Waiting {
  readonly #connection: Connection;
  readonly #watches = new Set<Watch>();
  readonly #next = new Map<string, Watch>(); // by namespace; they begin when all that are asked for now are there

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Resolves when the job has ended, and brings it up to date. */
  ended(job: Job, signal: AbortSignal): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const watch = this.#watchFor(job.namespace);
      const waiter: Waiter = {
        job,
        resolve: () => {
          release();
          resolve();
        },
        reject: (error) => {
          release();
          watch.remove(waiter);
          reject(error);
        },
      };
      let release = () => {};
      watch.add(waiter);
      release = onAbort(signal, waiter.reject);
      // A watch does not tell that there is no such job.
      if (Date.now() - job.seen > FRESH_MS && !signal.aborted) job.refresh({ signal }).catch(waiter.reject);
    });
  }

  #watchFor(namespace: string): Watch {
    let watch = this.#next.get(namespace);
    if (watch && watch.size < MAX_IDS) return watch;
    if (this.#watches.size >= FEW_WATCHES) {
      for (const running of this.#watches) {
        if (running.namespace === namespace && running.size < (watch?.size ?? MAX_IDS)) watch = running;
      }
      if (watch && watch.size < MAX_IDS) {
        watch.again();
        return watch;
      }
    }
    const fresh = new Watch(this.#connection, namespace, () => this.#watches.delete(fresh));
    this.#watches.add(fresh);
    this.#next.set(namespace, fresh);
    queueMicrotask(() => {
      if (this.#next.get(namespace) === fresh) this.#next.delete(namespace);
      this.#watches.add(fresh); // again, if all have left it, and others came
      fresh.begin();
    });
    return fresh;
  }
}

/** One watch for the ends of jobs of a namespace. */
class Watch {
  readonly namespace: string;
  readonly #connection: Connection;
  readonly #over: () => void;
  readonly #waiters = new Map<string, Set<Waiter>>();
  #scope: Scope | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(connection: Connection, namespace: string, over: () => void) {
    this.#connection = connection;
    this.namespace = namespace;
    this.#over = over;
  }

  get size(): number {
    return this.#waiters.size;
  }

  add(waiter: Waiter): void {
    const waiters = this.#waiters.get(waiter.job.id);
    if (waiters) waiters.add(waiter);
    else this.#waiters.set(waiter.job.id, new Set([waiter]));
  }

  remove(waiter: Waiter): void {
    const waiters = this.#waiters.get(waiter.job.id);
    if (!waiters?.delete(waiter)) return;
    if (waiters.size === 0) this.#waiters.delete(waiter.job.id);
    if (!this.size) this.#end();
  }

  /** Begins anew, soon, with the jobs that there are then. */
  again(): void {
    this.#timer ??= setTimeout(() => this.begin(), COLLECT_MS);
  }

  begin(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#scope?.dispose();
    if (!this.size) return this.#end();
    const scope = (this.#scope = new Scope());
    this.#run(scope.signal).catch((error) => {
      if (scope.signal.aborted) return; // nobody waits any more, or another one has begun
      for (const waiters of [...this.#waiters.values()]) for (const waiter of [...waiters]) waiter.reject(error);
    });
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#scope?.dispose();
    this.#over();
  }

  async #run(signal: AbortSignal): Promise<void> {
    // Jobs are sent only when they have ended, and those that have are sent first: it costs little to begin anew.
    const filter = { namespace: this.namespace, ids: [...this.#waiters.keys()], states: TERMINAL };
    for await (const message of watchJobs(this.#connection, filter, signal)) {
      for (const job of message.jobs) if (isTerminal(job)) this.#ended(job);
      if (!this.size) return this.#end();
    }
  }

  #ended(message: JobMessage): void {
    const waiters = this.#waiters.get(message.id);
    this.#waiters.delete(message.id);
    for (const waiter of waiters ?? []) {
      waiter.job.update(message);
      waiter.resolve();
    }
  }
}

/** What a watch sends, through restarts of the server. */
export function watchJobs(
  connection: Connection,
  filter: NonNullable<Parameters<Connection["jobs"]["watchJobs"]>[0]["filter"]>,
  signal: AbortSignal | undefined,
) {
  let resumeToken = "";
  const messages = connection.follow(
    async function* (options) {
      for await (const message of connection.jobs.watchJobs({ filter, resumeToken }, options)) {
        yield message;
        resumeToken = message.resumeToken;
      }
    },
    () => false,
    {
      signal,
      restart(error) {
        // What happened since is no longer known: everything is sent again.
        const tooOld = resumeToken !== "" && (error as { code?: unknown }).code === 11; // OUT_OF_RANGE
        if (tooOld) resumeToken = "";
        return tooOld;
      },
    },
  );
  return messages;
}
