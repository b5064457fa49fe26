package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// renewalPause is how far apart the certificates of one session are at least, and its access tokens: each costs signatures, and a commit.
const renewalPause = time.Second

// renewals answers an agent's wishes for certificates beside its stream, which must not wait for them.
type renewals struct {
	enrolment *identity.Enrolment
	worker    job.WorkerID
	session   *fleet.Session
	entry     chain.Entry // for the audit trail
	logger    *slog.Logger

	mu   sync.Mutex
	busy bool
	next []byte // the request that waits; a newer one takes its place
}

// want has a request (PKCS #10, DER) answered.
func (r *renewals) want(ctx context.Context, csr []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = csr
	if !r.busy {
		r.busy = true
		go r.answer(ctx)
	}
}

// answer serves requests until none is left or the session ends.
func (r *renewals) answer(ctx context.Context) {
	for {
		r.mu.Lock()
		csr := r.next
		r.next, r.busy = nil, csr != nil
		r.mu.Unlock()
		if csr == nil {
			return
		}
		entry := r.entry
		issued, err := r.enrolment.Renew(chain.NewContext(ctx, &entry), r.worker, csr)
		switch code := job.CodeOf(err); {
		case err == nil:
			r.session.Push(fleet.Certificate{Chain: issued.Chain, Roots: issued.Roots})
		case code == job.CodeInvalid || code == job.CodeDenied:
			r.session.Kick(err)
			return
		default:
			r.logger.Warn("an agent's certificate was not renewed; it will ask again", "worker", r.worker, "error", err)
		}
		pause := time.NewTimer(renewalPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}
