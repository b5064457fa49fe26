package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// knowing returns the settings of a client that knows the server by these roots.
func knowing(now func() time.Time, show []tls.Certificate, roots ...*x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	config := &tls.Config{RootCAs: pool, ServerName: "localhost", Time: now}
	if len(show) > 0 { // whether the server asks for one of this root or not
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &show[0], nil }
	}
	return config
}

// pinning returns the settings of a client that knows only a pin, as an agent that enrols.
func pinning(now func() time.Time, pin string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", VerifyConnection: func(state tls.ConnectionState) error {
		others := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			others.AddCert(c)
		}
		for _, c := range state.PeerCertificates[1:] {
			if pinOf(c) != pin || !c.IsCA {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(c)
			options := x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: "localhost", CurrentTime: now()}
			if _, err := state.PeerCertificates[0].Verify(options); err == nil {
				return nil
			}
		}
		return errors.New("the pin is not in the chain")
	}}
}

// together reports whether a client and the server of an authority come together, both satisfied.
func together(t *testing.T, server *tls.Config, client *tls.Config) bool {
	t.Helper()
	m := meet(t, server, client)
	return m.serverErr == nil && m.clientErr == nil
}

// TestRotation has clients that know different things come before, during and after a rotation, to one listener.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	a := openAuthority(t, dir, now.Now)
	server := a.ServerTLS(nil)
	old, oldPin := root(t, a), a.Pin()
	oldAgent, oldAdmin := []tls.Certificate{agent(t, a)}, []tls.Certificate{admin(t, a)}
	if err := a.Retire(); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("Retire without a rotation gives %v", err)
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := a.Rotate(); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("a second rotation beside the first gives %v", err)
	}
	fresh, freshPin := root(t, a), a.Pin()
	newAgent, newAdmin := []tls.Certificate{agent(t, a)}, []tls.Certificate{admin(t, a)}
	if freshPin == oldPin || !slices.Equal(a.Pins(), []string{freshPin, oldPin}) {
		t.Fatalf("the pins are %v after %s", a.Pins(), oldPin)
	}
	check := func(when string, oldGood bool) {
		t.Helper()
		for _, c := range []struct {
			name   string
			client *tls.Config
			want   bool
		}{
			{"knows the old root", knowing(now.Now, nil, old), oldGood},
			{"knows the new root", knowing(now.Now, nil, fresh), true},
			{"knows both", knowing(now.Now, nil, old, fresh), true},
			{"knows the old pin", pinning(now.Now, oldPin), oldGood},
			{"knows the new pin", pinning(now.Now, freshPin), true},
			{"an agent of the old root", knowing(now.Now, oldAgent, old, fresh), oldGood},
			{"an agent of the new root", knowing(now.Now, newAgent, fresh), true},
			{"the administrator of the old root", knowing(now.Now, oldAdmin, fresh), oldGood},
			{"the administrator of the new root", knowing(now.Now, newAdmin, fresh), true},
		} {
			if got := together(t, server, c.client); got != c.want {
				t.Errorf("%s: whoever %s came in: %v, want %v", when, c.name, got, c.want)
			}
		}
	}
	check("during the rotation", true)
	a = openAuthority(t, dir, now.Now)
	server = a.ServerTLS(nil)
	if !slices.Equal(a.Pins(), []string{freshPin, oldPin}) {
		t.Fatalf("after the restart the pins are %v", a.Pins())
	}
	check("after a restart", true)
	if state := a.State(); len(state.Roots) != 2 || state.Roots[0].Pin != freshPin || !strings.Contains(state.Roots[1].PEM, "BEGIN CERTIFICATE") {
		t.Errorf("the state is %+v", state)
	}
	if err := a.Retire(); err != nil {
		t.Fatal(err)
	}
	check("after the end of the rotation", false)
	a = openAuthority(t, dir, now.Now)
	server = a.ServerTLS(nil)
	check("after a restart at the end", false)
	if files := readFiles(t, dir); len(files) != len(allFiles) {
		t.Errorf("%d files are left, want %d", len(files), len(allFiles))
	}
	if err := a.Rotate(); err != nil {
		t.Errorf("the next rotation: %v", err)
	}
}

var errCut = errors.New("cut off")

// cutAfter lets n changes of the folder happen and no other.
func (a *Authority) cutAfter(n int) {
	a.cut = func(string) error {
		if n--; n < 0 {
			return errCut
		}
		return nil
	}
}

// TestRotationIsCutOff ends a rotation before each change of the folder, by a crash and by a disk that is full for a moment.
func TestRotationIsCutOff(t *testing.T) {
	t.Parallel()
	for n, done := 0, false; !done; n++ {
		for _, crash := range []bool{true, false} {
			dir, now := t.TempDir(), newClock()
			a := openAuthority(t, dir, now.Now)
			old, oldAgent := root(t, a), []tls.Certificate{agent(t, a)}
			a.cutAfter(n)
			err := a.Rotate()
			done = err == nil
			if err != nil && !errors.Is(err, errCut) {
				t.Fatalf("cut off before change %d, Rotate gives %v", n, err)
			}
			if !together(t, a.ServerTLS(nil), knowing(now.Now, oldAgent, old)) {
				t.Errorf("cut off before change %d, the server goes on without its agents", n)
			}
			a.cut = nil
			if crash {
				a = openAuthority(t, dir, now.Now)
				for _, ending := range []string{keyPE, certificatePE} {
					if _, err := os.Stat(a.path(nextFile + ending)); err == nil {
						t.Errorf("cut off before change %d, the next start leaves %s behind", n, nextFile+ending)
					}
				}
			}
			wantWholeRotation(t, a, dir, now, old, oldAgent, n)
		}
		if n > 100 {
			t.Fatal("a rotation never ends")
		}
	}
}

// wantWholeRotation completes what was cut off, and checks that nobody was left behind.
func wantWholeRotation(t *testing.T, a *Authority, dir string, now *clock, old *x509.Certificate, oldAgent []tls.Certificate, n int) {
	t.Helper()
	if !together(t, a.ServerTLS(nil), knowing(now.Now, oldAgent, old)) {
		t.Errorf("cut off before change %d, an agent of the old root was left behind", n)
	}
	if len(a.Pins()) == 1 && a.Pin() != pinOf(old) {
		t.Errorf("cut off before change %d, the root was replaced without a rotation", n)
	}
	if err := a.Rotate(); err != nil && job.CodeOf(err) != job.CodePrecondition {
		t.Fatalf("cut off before change %d, the rotation cannot be completed: %v", n, err)
	}
	if pins := a.Pins(); len(pins) != 2 || pins[1] != pinOf(old) {
		t.Fatalf("cut off before change %d, the completed rotation has the roots %v", n, pins)
	}
	b := openAuthority(t, dir, now.Now)
	if !slices.Equal(a.Pins(), b.Pins()) {
		t.Errorf("cut off before change %d, the roots are %v and after a restart %v", n, a.Pins(), b.Pins())
	}
	for _, c := range []*tls.Config{knowing(now.Now, oldAgent, old), knowing(now.Now, []tls.Certificate{agent(t, a)}, root(t, a))} {
		if !together(t, b.ServerTLS(nil), c) {
			t.Errorf("cut off before change %d, somebody was left behind after all", n)
		}
	}
	if p, err := PrincipalOf(certificateIn(t, dir, adminFile)); err != nil || p.Name != Administrator ||
		certificateIn(t, dir, adminFile).CheckSignatureFrom(root(t, b)) != nil {
		t.Errorf("cut off before change %d, the administrator's certificate is %v (error %v)", n, p, err)
	}
}

// TestRetirementIsCutOff does the same with the end of a rotation.
func TestRetirementIsCutOff(t *testing.T) {
	t.Parallel()
	for n, done := 0, false; !done; n++ {
		dir, now := t.TempDir(), newClock()
		a := openAuthority(t, dir, now.Now)
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		pin, agents := a.Pin(), []tls.Certificate{agent(t, a)}
		a.cutAfter(n)
		err := a.Retire()
		done = err == nil
		a = openAuthority(t, dir, now.Now)
		if a.Pin() != pin || !together(t, a.ServerTLS(nil), knowing(now.Now, agents, root(t, a))) {
			t.Errorf("cut off before change %d, the new root is not in force", n)
		}
		if n > 0 && len(a.Pins()) != 1 {
			t.Errorf("cut off before change %d, the old root is still trusted", n)
		}
	}
}

func TestRotationWithoutWhatItNeeds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil spoiler
		want  string
	}{
		"no joining certificate":          {removing("ca-cross.pem"), "remove the second root"},
		"another joining certificate":     {copying("server.pem", "ca-cross.pem"), "must list one root, or the two"},
		"the key of the old root is back": {copying("old-key.pem", "ca-key.pem"), "is not the key of ca.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock()
			a := openAuthority(t, dir, now.Now)
			copying("ca-key.pem", "old-key.pem")(t, dir)
			if err := a.Rotate(); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, dir)
			if _, err := OpenAuthority(dir, AuthorityConfig{Now: now.Now}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("OpenAuthority gives %v", err)
			}
		})
	}
}

// TestRotationUnderLoad lets agents shake hands all the time while the root changes.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	server := a.ServerTLS(nil)
	client := knowing(now.Now, []tls.Certificate{agent(t, a)}, root(t, a))
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for first := true; ; first = false {
				select {
				case <-stop:
					if !first {
						return
					}
				default:
				}
				if !together(t, server, client) {
					t.Error("an agent was refused")
				}
			}
		})
	}
	if err := a.Rotate(); err != nil {
		t.Error(err)
	}
	for range 20 {
		agent(t, a)
	}
	close(stop)
	group.Wait()
}

// TestBothRootsAreInTheFile lets clients that are given the file with the roots go on at once.
func TestBothRootsAreInTheFile(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	a := openAuthority(t, dir, now.Now)
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) || strings.Count(string(data), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("ca.pem is %s", data)
	}
	if !together(t, a.ServerTLS(nil), &tls.Config{RootCAs: pool, ServerName: "localhost", Time: now.Now, Certificates: []tls.Certificate{admin(t, a)}}) {
		t.Error("a client with ca.pem was refused")
	}
}
