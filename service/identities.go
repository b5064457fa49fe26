package service

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/api"
	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// records is how use cases beside the orchestrator read and write records: all writes go through the one writer, so that those of a server
// that has lost the lead fail, and each leaves its record in the audit trail in the same commit.
type records struct {
	store.Jobs
	store.Records
	store.Committer
}

// identities are who may come in, and what they may do.
type identities struct {
	access       *access.Access
	credentials  *identity.Credentials
	accessTokens *identity.AccessTokens
	enrolment    *identity.Enrolment
	provider     api.Provider
	api          *api.API
}

// openIdentities loads who may come in. The orchestrator must be open.
func (s *Server) openIdentities(ctx context.Context) error {
	i, tls := &s.identity, filepath.Join(s.config.DataDir, "tls")
	recheck := func() { i.api.Recheck() }
	var err error
	if i.access, err = access.Open(ctx, s.records, api.Permissions(), time.Now, recheck, s.config.Logger); err != nil {
		return err
	}
	if i.credentials, err = identity.OpenCredentials(ctx, s.records, s.authority, time.Now, recheck, s.config.Logger); err != nil {
		return err
	}
	if i.accessTokens, err = identity.OpenAccessTokens(tls, time.Now); err != nil {
		return err
	}
	if i.provider, err = newProvider(s.config.OIDC); err != nil {
		return err
	}
	i.enrolment = identity.NewEnrolment(identity.EnrolmentConfig{Authority: s.authority, Tokens: s.tokens, Cloned: s.cloned})
	return s.openTrail()
}

// openTrail opens the audit trail, whose key is made at the first boot.
func (s *Server) openTrail() error {
	dir := filepath.Join(s.config.DataDir, "audit")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for the audit trail: %w", err)
	}
	key, err := audit.OpenKey(dir)
	if err != nil {
		return err
	}
	s.trail, err = audit.New(audit.Config{
		Store: s.store, Key: key, CheckpointFile: cmp.Or(s.config.AuditCheckpoints, filepath.Join(dir, "checkpoints.jsonl")), Keep: s.config.KeepAudit,
		Clock: time.Now, Logger: s.config.Logger, Alarm: s.alarm, FileFailed: func() { s.metrics.Alarm("audit-checkpoint-file") },
	})
	return err
}

// checkCertificate refuses a client certificate in the handshake that is of no use any more.
func (i *identities) checkCertificate(leaf *x509.Certificate) error {
	p, err := identity.PrincipalOf(leaf)
	if err != nil {
		return err
	}
	return i.credentials.Check(&p, identity.FingerprintOf(leaf))
}

// cloned ends an identity that two agents use: nobody can tell which of them is the right one.
func (s *Server) cloned(ctx context.Context, worker job.WorkerID, why string) {
	subject := identity.Principal{Kind: identity.Agent, Worker: worker}.String()
	s.config.Logger.Error("ALARM: two agents use the identity of one worker, which was revoked; enrol the right one again",
		"worker", worker, "reason", why)
	s.metrics.Alarm("identity-cloned")
	entry := chain.Entry{Actor: "server", Action: "alarm.identity-cloned", Targets: []string{subject}, Outcome: chain.OK, Reason: why}
	if _, err := s.identity.credentials.Revoke(chain.NewContext(ctx, &entry), subject, why, "server"); err != nil {
		s.config.Logger.Error("the identity was not revoked", "worker", worker, "error", err)
	}
}

// alarm is for what an operator must look at.
func (s *Server) alarm(text string) {
	s.config.Logger.Error("ALARM: " + text)
	s.metrics.Alarm("audit")
}
