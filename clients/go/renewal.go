package hodei

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

const (
	renewalLimit = 10 * time.Second // bounds a renewal, for which a call waits
	renewalPause = time.Minute      // after one that failed, while the certificate is still good
)

// renewal renews the certificate of a login when two thirds of its life are over. A nil one does nothing.
type renewal struct {
	client *Client
	until  time.Time
	due    atomic.Int64 // in nanoseconds since 1970
	mu     sync.Mutex   // held by the call that renews
}

// newRenewal returns nil for a client without a login that can be renewed. Only files that Login has written are replaced.
func newRenewal(c *Client) (*renewal, error) {
	config := c.config
	if config.Login == "" || config.RenewableUntil == "" || config.Cert != config.Key || filepath.Base(config.Cert) != loginFile {
		return nil, nil
	}
	until, err := time.Parse(time.RFC3339, config.RenewableUntil)
	if err != nil {
		return nil, fmt.Errorf("renewable_until of context %q is not a time as in RFC 3339: %w; log in again with `hodei login`", config.Context, err)
	}
	r := &renewal{client: c, until: until}
	return r, r.look()
}

// look reads when the certificate that is stored now is to be renewed.
func (r *renewal) look() error {
	pair, err := loadPair(r.client.config)
	if err != nil {
		return err
	}
	from, to := pair.Leaf.NotBefore, pair.Leaf.NotAfter
	r.due.Store(from.Add(to.Sub(from) * 2 / 3).UnixNano())
	return nil
}

func (r *renewal) isDue() bool {
	return r != nil && time.Now().UnixNano() >= r.due.Load()
}

// keepFresh renews the certificate if it is time. It is no error when that fails: the old one is good still, or the call itself
// says what is wrong. Only one call waits for it, of this process and of all others that use the same files.
func (r *renewal) keepFresh(ctx context.Context) {
	if !r.isDue() || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	now := time.Now()
	if now.After(r.until) || r.renew(ctx) != nil || r.isDue() { // a fresh one is due when the clocks differ by more than its life
		r.due.Store(now.Add(renewalPause).UnixNano())
	}
}

// keepFreshBehind is keepFresh for a stream, which does not wait.
func (r *renewal) keepFreshBehind(ctx context.Context) {
	if r.isDue() {
		go r.keepFresh(ctx)
	}
}

// renew has further connections use a fresh certificate.
func (r *renewal) renew(ctx context.Context) error {
	dir := filepath.Dir(r.client.config.Cert)
	unlock, err := tryLock(filepath.Join(dir, lockFile))
	if err != nil {
		return err
	}
	defer unlock()
	if err := r.look(); err != nil {
		return err
	}
	if r.isDue() { // no other process was faster
		if err := r.fetch(ctx, dir); err != nil {
			return err
		}
	}
	return r.client.connectAs(r.client.config)
}

func (r *renewal) fetch(ctx context.Context, dir string) error {
	ctx, cancel := ownCall(ctx, renewalLimit)
	defer cancel()
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	res, err := r.client.bare.RenewCertificate(ctx, &hodeiv1.RenewCertificateRequest{CsrDer: csr})
	if err != nil {
		return err
	}
	if err := storeLogin(dir, key, res.GetCertificate()); err != nil {
		return err
	}
	return r.look()
}
