package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2031, 5, 17, 9, 30, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// openAuthority opens an authority that must open.
func openAuthority(t testing.TB, dir string, now func() time.Time, hosts ...string) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir, AuthorityConfig{Hosts: hosts, Now: now})
	if err != nil {
		t.Fatalf("opening the authority in %s: %v", dir, err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// request makes a certificate request for key from a template.
func request(t testing.TB, template *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// parse reads a certificate that must be one.
func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// records is a Store in memory that keeps only records.
type records struct {
	store.Records // nil: what is not below is not called
	mu            sync.Mutex
	values        map[string][]byte // by kind, a slash, and key
	fail          error             // what reads and commits return when it is set
}

func newRecords() *records { return &records{values: make(map[string][]byte)} }

func (r *records) setFail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

func (r *records) Commit(ctx context.Context, batch *store.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, record := range batch.Records {
		if len(record.Value) == 0 {
			delete(r.values, record.Kind+"/"+record.Key)
		} else {
			r.values[record.Kind+"/"+record.Key] = slices.Clone(record.Value)
		}
	}
	return nil
}

func (r *records) Record(_ context.Context, kind, key string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return nil, r.fail
	}
	if value, ok := r.values[kind+"/"+key]; ok {
		return slices.Clone(value), nil
	}
	return nil, &job.Error{Code: job.CodeNotFound, Message: "there is no such record"}
}

func (r *records) ListRecords(_ context.Context, kind string) ([]store.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return nil, r.fail
	}
	var out []store.Record
	for name, value := range r.values {
		if len(name) > len(kind) && name[:len(kind)+1] == kind+"/" {
			out = append(out, store.Record{Kind: kind, Key: name[len(kind)+1:], Value: slices.Clone(value)})
		}
	}
	return out, nil
}

// count returns how many records of a kind there are.
func (r *records) count(t testing.TB, kind string) int {
	t.Helper()
	all, err := r.ListRecords(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// root returns the certificate of the root that signs.
func root(t testing.TB, a *Authority) *x509.Certificate {
	t.Helper()
	return parse(t, a.Roots()[0])
}
