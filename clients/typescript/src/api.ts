/**
 * The generated messages and services of the API, for `client.raw`.
 *
 * @packageDocumentation
 */
export { ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
export type { ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details_pb.js";
export * from "./gen/hodei/v1/auth_service_pb.js";
export * from "./gen/hodei/v1/error_pb.js";
export * from "./gen/hodei/v1/job_pb.js";
export * from "./gen/hodei/v1/job_service_pb.js";
export * from "./gen/hodei/v1/log_service_pb.js";
export * from "./gen/hodei/v1/queue_service_pb.js";
export * from "./gen/hodei/v1/secret_service_pb.js";
export * from "./gen/hodei/v1/worker_service_pb.js";
