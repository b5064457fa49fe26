package identity

import (
	"crypto/x509"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// office is all that enrolment needs.
type office struct {
	db        *records
	now       *clock
	authority *Authority
	tokens    *Tokens
	*Enrolment
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{db: newRecords(), now: newClock()}
	o.authority = openAuthority(t, t.TempDir(), o.now.Now)
	o.tokens = NewTokens(o.db, o.now.Now)
	o.Enrolment = NewEnrolment(EnrolmentConfig{Authority: o.authority, Tokens: o.tokens})
	return o
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	labels := map[string]string{"zone": "a", "gpu": ""}
	token, secret := create(t, o.tokens, CreateOptions{Labels: labels})
	key := newKey(t)
	id, issued, err := o.Enroll(t.Context(), EnrollRequest{Token: secret, CSR: request(t, &x509.CertificateRequest{}, key), Name: "host-1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(id) != 4+26 || !strings.HasPrefix(string(id), "wkr_") || strings.ToLower(string(id)) != string(id) {
		t.Errorf("the worker's id is %q", id)
	}
	c := checkAgents(t, root(t, o.authority), issued, o.now.Now())
	if p, err := PrincipalOf(c); err != nil || p.Kind != Agent || p.Worker != id || !key.PublicKey.Equal(c.PublicKey) {
		t.Errorf("the certificate is of %v (error %v)", p, err)
	}
	w, err := o.Worker(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if w.Name != "host-1" || w.TokenID != token.ID || !w.Enrolled.Equal(o.now.Now()) || !maps.Equal(w.Labels, labels) {
		t.Errorf("the worker is stored as %+v", w)
	}
}

// TestEnrollRefuses checks that whatever else is wrong with a request, it does not use the token up and stores no worker.
func TestEnrollRefuses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, secret := create(t, o.tokens, CreateOptions{})
	csr := request(t, &x509.CertificateRequest{}, newKey(t))
	tests := []struct {
		name    string
		request EnrollRequest
		code    job.Code
	}{
		{"no request", EnrollRequest{Token: secret, Name: "a"}, job.CodeInvalid},
		{"a damaged request", EnrollRequest{Token: secret, Name: "a", CSR: csr[:60]}, job.CodeInvalid},
		{"no name", EnrollRequest{Token: secret, CSR: csr}, job.CodeInvalid},
		{"a long name", EnrollRequest{Token: secret, CSR: csr, Name: strings.Repeat("a", 1<<20)}, job.CodeInvalid},
		{"no token", EnrollRequest{CSR: csr, Name: "a"}, job.CodeUnauthenticated},
		{"a wrong token and no request", EnrollRequest{Token: "hat_x", Name: "a"}, job.CodeUnauthenticated},
	}
	for _, tt := range tests {
		id, issued, err := o.Enroll(t.Context(), tt.request)
		if job.CodeOf(err) != tt.code || id != "" || issued.Chain != nil {
			t.Errorf("%s: Enroll = %q, %x, %v, want code %d", tt.name, id, issued.Chain, err, tt.code)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: the message repeats what was sent, it has %d bytes", tt.name, len(err.Error()))
		}
		if o.db.count(t, workerRecord) != 0 {
			t.Errorf("%s: a worker was stored", tt.name)
		}
	}
	if _, _, err := o.Enroll(t.Context(), EnrollRequest{Token: secret, CSR: csr, Name: "a"}); err != nil {
		t.Errorf("the right request after wrong ones: %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "build host 7", "máquina-ñ", "工作机", strings.Repeat("機", 128)} {
		if err := checkName(good); err != nil {
			t.Errorf("checkName(%q): %v", good, err)
		}
	}
	for _, bad := range []string{
		"", strings.Repeat("機", 129), "a\nb", "a\x00", "\x1b[31m", "\u202etxt", "a\u2028b", "\xff", "a\xc3", "\u00a0", "\ufeffa",
	} {
		if err := checkName(bad); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("checkName(%q) = %v, want a refusal", bad, err)
		}
	}
}

// TestEnrollTogether shows one token to many agents at the same moment.
func TestEnrollTogether(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, secret := create(t, o.tokens, CreateOptions{})
	csr := request(t, &x509.CertificateRequest{}, newKey(t))
	var won, refused atomic.Int32
	var group sync.WaitGroup
	start := make(chan struct{})
	for range 50 {
		group.Go(func() {
			<-start
			_, _, err := o.Enroll(t.Context(), EnrollRequest{Token: secret, CSR: csr, Name: "a"})
			if err == nil {
				won.Add(1)
			} else if job.CodeOf(err) == job.CodeUnauthenticated {
				refused.Add(1)
			}
		})
	}
	close(start)
	group.Wait()
	if won.Load() != 1 || refused.Load() != 49 || o.db.count(t, workerRecord) != 1 {
		t.Errorf("%d agents enrolled (%d stored) and %d were refused, want 1 and 49", won.Load(), o.db.count(t, workerRecord), refused.Load())
	}
}

// TestEnrollIsDurable shows that neither a worker nor the use of a token is forgotten by the server's restart.
func TestEnrollIsDurable(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, secret := create(t, o.tokens, CreateOptions{})
	csr := request(t, &x509.CertificateRequest{}, newKey(t))
	broken := errors.New("the disk is gone")
	o.db.setFail(broken)
	r := EnrollRequest{Token: secret, CSR: csr, Name: "a"}
	if id, issued, err := o.Enroll(t.Context(), r); !errors.Is(err, broken) || id != "" || issued.Chain != nil {
		t.Fatalf("Enroll on a store that fails = %q, %x, %v", id, issued.Chain, err)
	}
	o.db.setFail(nil)
	id, _, err := o.Enroll(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	restarted := NewEnrolment(EnrolmentConfig{Authority: o.authority, Tokens: NewTokens(o.db, o.now.Now)})
	_, _, err = restarted.Enroll(t.Context(), r)
	wantRefused(t, err, "used up")
	if _, err := restarted.Worker(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, secret := create(t, o.tokens, CreateOptions{})
	csr := request(t, &x509.CertificateRequest{}, newKey(t))
	id, _, err := o.Enroll(t.Context(), EnrollRequest{Token: secret, CSR: csr, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	o.now.advance(16 * time.Hour)
	key := newKey(t)
	issued, err := o.Renew(t.Context(), id, request(t, &x509.CertificateRequest{}, key))
	if err != nil {
		t.Fatal(err)
	}
	c := checkAgents(t, root(t, o.authority), issued, o.now.Now())
	if p, err := PrincipalOf(c); err != nil || p.Worker != id || !key.PublicKey.Equal(c.PublicKey) {
		t.Errorf("the new certificate is of %v (error %v)", p, err)
	}
	if _, err := o.Renew(t.Context(), id, nil); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("renewal without a request gives %v", err)
	}
	for _, stranger := range []job.WorkerID{"", "wkr_1", id + "x"} {
		_, err := o.Renew(t.Context(), stranger, csr)
		if job.CodeOf(err) != job.CodeDenied || !strings.Contains(err.Error(), "hodei token create") {
			t.Errorf("renewal for %q gives %v", stranger, err)
		}
	}
}

func TestWorkerRecordInTrouble(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.db.values[workerRecord+"/wkr_1"] = []byte("{")
	if _, err := o.Worker(t.Context(), "wkr_1"); err == nil || !strings.Contains(err.Error(), "wkr_1 is damaged") {
		t.Errorf("a damaged record gives %v", err)
	}
	broken := errors.New("the disk is gone")
	o.db.setFail(broken)
	if _, err := o.Worker(t.Context(), "wkr_1"); !errors.Is(err, broken) {
		t.Errorf("a store that fails gives %v", err)
	}
}
