package access

import "slices"

const adminRole = "admin"

// What the built-in roles permit. Each of the first three has what the one before has.
var (
	viewerPermissions    = []string{"jobs.read", "logs.read", "queues.read", "namespaces.read", "workers.read"}
	submitterPermissions = append([]string{"jobs.submit", "jobs.cancel", "secrets.list"}, viewerPermissions...)
	operatorPermissions  = append([]string{
		"jobs.release", "queues.write", "namespaces.write", "secrets.set", "secrets.delete", "workers.drain", "retention.set", "retention.list",
		"tokens.create", "tokens.list", "tokens.revoke",
	}, submitterPermissions...)
	auditorPermissions = []string{"audit.read", "access.read", "tokens.list", "logins.list", "revocations.read", "authority.read"}
)

// builtIn returns the roles that come with the server; admin holds everything.
func builtIn(catalog []string) []Role {
	return []Role{
		{"viewer", slices.Clone(viewerPermissions), "sees jobs, logs, queues and workers", true},
		{"submitter", slices.Clone(submitterPermissions), "submits and cancels jobs", true},
		{"operator", slices.Clone(operatorPermissions), "runs queues, secrets, workers and the tokens of agents", true},
		{"auditor", slices.Clone(auditorPermissions), "reads the audit trail and who may do what", true},
		{adminRole, slices.Clone(catalog), "may do everything", true},
	}
}
