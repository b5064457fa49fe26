"""The generated clients, made when they are used: importing all of them takes a while."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from hodei._gen.hodei.admin.v1.access_service_connect import AccessServiceClient, AccessServiceClientSync
    from hodei._gen.hodei.admin.v1.audit_service_connect import AuditServiceClient, AuditServiceClientSync
    from hodei._gen.hodei.admin.v1.authority_service_connect import AuthorityServiceClient, AuthorityServiceClientSync
    from hodei._gen.hodei.admin.v1.login_service_connect import LoginServiceClient, LoginServiceClientSync
    from hodei._gen.hodei.admin.v1.retention_service_connect import RetentionServiceClient, RetentionServiceClientSync
    from hodei._gen.hodei.admin.v1.token_service_connect import TokenServiceClient, TokenServiceClientSync
    from hodei._gen.hodei.v1.auth_service_connect import AuthServiceClient, AuthServiceClientSync
    from hodei._gen.hodei.v1.job_service_connect import JobServiceClient, JobServiceClientSync
    from hodei._gen.hodei.v1.log_service_connect import LogServiceClient, LogServiceClientSync
    from hodei._gen.hodei.v1.queue_service_connect import QueueServiceClient, QueueServiceClientSync
    from hodei._gen.hodei.v1.secret_service_connect import SecretServiceClient, SecretServiceClientSync
    from hodei._gen.hodei.v1.worker_service_connect import WorkerServiceClient, WorkerServiceClientSync

# The module and the service of each.
_SERVICES = {
    "jobs": ("v1.job_service", "JobService"),
    "logs": ("v1.log_service", "LogService"),
    "workers": ("v1.worker_service", "WorkerService"),
    "secrets": ("v1.secret_service", "SecretService"),
    "queues": ("v1.queue_service", "QueueService"),
    "auth": ("v1.auth_service", "AuthService"),
    "tokens": ("admin.v1.token_service", "TokenService"),
    "retention": ("admin.v1.retention_service", "RetentionService"),
    "access": ("admin.v1.access_service", "AccessService"),
    "logins": ("admin.v1.login_service", "LoginService"),
    "authority": ("admin.v1.authority_service", "AuthorityService"),
    "audit": ("admin.v1.audit_service", "AuditService"),
}


class _Stubs:
    _suffix = ""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        if name not in _SERVICES:
            raise AttributeError(f"there is no service {name!r}; there are {', '.join(_SERVICES)}")
        module, service = _SERVICES[name]
        stub = self._make(getattr(import_module(f"hodei._gen.hodei.{module}_connect"), service + self._suffix))
        setattr(self, name, stub)
        return stub


class Raw(_Stubs):
    """The generated clients, for what the methods of `Client` do not cover.

    They prove who the caller is like the methods, and neither repeat calls nor translate errors.

    >>> from hodei._gen.hodei.v1.auth_service_pb import WhoAmIRequest
    >>> client.raw.auth.who_am_i(WhoAmIRequest()).principal.startswith("user/")
    True
    """

    _suffix = "ClientSync"

    if TYPE_CHECKING:
        jobs: JobServiceClientSync
        logs: LogServiceClientSync
        workers: WorkerServiceClientSync
        secrets: SecretServiceClientSync
        queues: QueueServiceClientSync
        auth: AuthServiceClientSync
        tokens: TokenServiceClientSync
        retention: RetentionServiceClientSync
        access: AccessServiceClientSync
        logins: LoginServiceClientSync
        authority: AuthorityServiceClientSync
        audit: AuditServiceClientSync


class AsyncRaw(_Stubs):
    """The generated clients, for what the methods of `AsyncClient` do not cover.

    They prove who the caller is like the methods, and neither repeat calls nor translate errors.
    """

    _suffix = "Client"

    if TYPE_CHECKING:
        jobs: JobServiceClient
        logs: LogServiceClient
        workers: WorkerServiceClient
        secrets: SecretServiceClient
        queues: QueueServiceClient
        auth: AuthServiceClient
        tokens: TokenServiceClient
        retention: RetentionServiceClient
        access: AccessServiceClient
        logins: LoginServiceClient
        authority: AuthorityServiceClient
        audit: AuditServiceClient
