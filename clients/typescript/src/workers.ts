import type { CallOptions, Connection } from "./connection.js";
import { WorkerService, WorkerState as State, type Worker as WorkerMessage } from "./gen/hodei/v1/worker_service_pb.js";
import { nameOf } from "./job.js";
import { dateOf } from "./time.js";

/** Where a worker stands. */
export type WorkerState = Exclude<keyof typeof State, "UNSPECIFIED">;

/** An amount of what workers have: CPUs, bytes of memory, and named extras. */
export interface Resources {
  readonly cpus: number;
  readonly memory: number;
  readonly extras: Readonly<Record<string, number>>;
}

/** A machine with an agent. */
export interface Worker {
  readonly id: string;
  readonly name: string;
  readonly state: WorkerState;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly string[];
  /** What it has for jobs. */
  readonly capacity: Resources;
  /** What its jobs have reserved. */
  readonly reserved: Resources;
  /** The jobs that it has, of the namespaces that the caller may read. */
  readonly jobIds: readonly string[];
  readonly heartbeat: Date | undefined;
  readonly connected: Date | undefined;
  readonly agentVersion: string;
  /** Why it is out of use; empty when it is not. */
  readonly suspendReason: string;
}

/** The workers of a server. It is `client.workers`. */
export class Workers {
  readonly #connection: Connection;

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** All workers, by name, read page after page. */
  async *list(options: CallOptions = {}): AsyncGenerator<Worker, void, undefined> {
    const stubs = this.#connection.stubs(WorkerService);
    let pageToken = "";
    do {
      const request = { pageToken, pageSize: 1000 };
      const page = await this.#connection.call((o) => stubs.listWorkers(request, o), options);
      for (const worker of page.workers) yield workerOf(worker);
      pageToken = page.nextPageToken;
    } while (pageToken);
  }
}

function workerOf(w: WorkerMessage): Worker {
  return {
    id: w.id,
    name: w.name,
    state: nameOf(State, w.state),
    labels: w.labels,
    taints: w.taints,
    capacity: resourcesOf(w.capacity),
    reserved: resourcesOf(w.reserved),
    jobIds: w.jobIds,
    heartbeat: dateOf(w.heartbeatTime),
    connected: dateOf(w.connectTime),
    agentVersion: w.agentVersion,
    suspendReason: w.suspendReason,
  };
}

function resourcesOf(r: WorkerMessage["capacity"]): Resources {
  return { cpus: (r?.milliCpu ?? 0) / 1000, memory: (r?.memoryMib ?? 0) * 2 ** 20, extras: r?.extras ?? {} };
}
