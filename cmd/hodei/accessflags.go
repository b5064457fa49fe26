package main

import (
	"github.com/spf13/pflag"

	"github.com/hodei-jobs/hodei/service"
)

// addAccessFlags are for who may come in, and for the trail of what they do; docs/access.md and docs/audit.md explain them.
func addAccessFlags(flags *pflag.FlagSet, config *service.Config) {
	o := &config.OIDC
	flags.StringVar(&o.Issuer, "oidc-issuer", "", "address of the OIDC provider with which people log in (default none)")
	flags.StringVar(&o.ClientID, "oidc-client-id", "", "public client of this server at the OIDC provider")
	flags.StringVar(&o.NameClaim, "oidc-name-claim", "", "claim that names users (default: their verified email, else oidc: and their subject)")
	flags.StringVar(&o.GroupsClaim, "oidc-groups-claim", "", "claim with the groups of users (default groups)")
	flags.StringSliceVar(&o.Scopes, "oidc-scopes", nil, "what to ask the provider for (default openid,email,profile,groups)")
	flags.StringVar(&config.AuditCheckpoints, "audit-checkpoints", "",
		"file to which signed checkpoints of the audit trail are appended, best on another disk (default DATA-DIR/audit/checkpoints.jsonl)")
	flags.DurationVar(&config.KeepAudit, "keep-audit", 0, "how long records of the audit trail are kept (default for ever)")
}
