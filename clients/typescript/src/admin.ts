/**
 * The generated messages and services with which administrators run a server, for `client.raw`.
 *
 * @packageDocumentation
 */
export * from "./gen/hodei/admin/v1/access_service_pb.js";
export * from "./gen/hodei/admin/v1/audit_service_pb.js";
export * from "./gen/hodei/admin/v1/authority_service_pb.js";
export * from "./gen/hodei/admin/v1/login_service_pb.js";
export * from "./gen/hodei/admin/v1/retention_service_pb.js";
export * from "./gen/hodei/admin/v1/token_service_pb.js";
