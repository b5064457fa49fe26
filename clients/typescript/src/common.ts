export type { CallOptions } from "./connection.js";
export * from "./errors.js";
export type { Cause, Job, JobState, StepState, StepStatus } from "./job.js";
export type { AsyncOrSync, CancelOptions, Explanation, JobFilter, Jobs, ListOptions, WaitOptions } from "./jobs.js";
export type { LogChunk, LogLine, StreamName } from "./lines.js";
export type { LogCompleteness, LogOptions, LogReader } from "./logs.js";
export type { Command, Constraint, JobOptions, SecretRef, Step } from "./spec.js";
export { VERSION } from "./version.js";
export type { Resources, Worker, Workers, WorkerState } from "./workers.js";
