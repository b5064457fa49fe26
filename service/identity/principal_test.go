package identity

import (
	"crypto/x509"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

func withURIs(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{}
	for _, text := range uris {
		uri, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, uri)
	}
	return c
}

func TestPrincipalOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		uris []string
		want string // empty: refused
	}{
		{"the administrator", []string{"hodei://user/admin"}, "user/admin"},
		{"a user", []string{"hodei://user/ada"}, "user/ada"},
		{"an agent", []string{"hodei://agent/wkr_1"}, "agent/wkr_1"},
		{"a user named like a kind", []string{"hodei://user/agent"}, "user/agent"},
		{"none", nil, ""},
		{"two", []string{"hodei://user/ada", "hodei://user/admin"}, ""},
		{"twice the same", []string{"hodei://user/ada", "hodei://user/ada"}, ""},
		{"one of ours and another", []string{"hodei://user/ada", "https://example.org/"}, ""},
		{"another scheme", []string{"https://user/admin"}, ""},
		{"SPIFFE", []string{"spiffe://user/admin"}, ""},
		{"another kind", []string{"hodei://root/admin"}, ""},
		{"a kind in capitals", []string{"hodei://USER/admin"}, ""},
		{"a kind with a port", []string{"hodei://user:80/admin"}, ""},
		{"a kind with somebody before it", []string{"hodei://agent@user/admin"}, ""},
		{"no name", []string{"hodei://user/"}, ""},
		{"no path", []string{"hodei://user"}, ""},
		{"no kind", []string{"hodei:///admin"}, ""},
		{"opaque", []string{"hodei:user/admin"}, ""},
		{"a deeper path", []string{"hodei://user/admin/x"}, ""},
		{"a doubled slash", []string{"hodei://user//admin"}, ""},
		{"a slash at the end", []string{"hodei://user/admin/"}, ""},
		{"an escaped letter", []string{"hodei://user/%61dmin"}, ""},
		{"an escaped slash", []string{"hodei://user/a%2fb"}, ""},
		{"a query", []string{"hodei://user/admin?x=1"}, ""},
		{"an empty query", []string{"hodei://user/admin?"}, ""},
		{"a fragment", []string{"hodei://user/admin#x"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := PrincipalOf(withURIs(t, tt.uris...))
			if tt.want == "" {
				if err == nil || p.Kind != Anonymous {
					t.Errorf("PrincipalOf = %v, %v, want a refusal", p, err)
				}
				return
			}
			if err != nil || p.String() != tt.want {
				t.Errorf("PrincipalOf = %v, %v, want %s", p, err, tt.want)
			}
		})
	}
}

func TestPrincipalString(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]Principal{
		"anonymous":   {},
		"user/ada":    {Kind: User, Name: "ada", Worker: "wkr_1"},
		"agent/wkr_1": {Kind: Agent, Name: "ada", Worker: "wkr_1"},
	} {
		if got := p.String(); got != want {
			t.Errorf("String of %#v = %q, want %q", p, got, want)
		}
	}
}

// TestPrincipalRoundTrip sends identities through the text of a URI, as a certificate does.
func TestPrincipalRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._@-]{0,63}`).Draw(r, "name")
		p := Principal{Kind: User, Name: name}
		if rapid.Bool().Draw(r, "agent") {
			p = Principal{Kind: Agent, Worker: job.WorkerID(name)}
		}
		got, err := PrincipalOf(withURIs(t, p.uri().String()))
		if err != nil || !reflect.DeepEqual(got, p) {
			r.Fatalf("%v became %v (error %v)", p, got, err)
		}
	})
}

// FuzzPrincipalOf checks that every identity has one spelling, so that two certificates never look like one in a record.
func FuzzPrincipalOf(f *testing.F) {
	for _, seed := range []string{"hodei://user/admin", "hodei://agent/wkr_1", "hodei://user/a%2fb", "hodei:user", "hodei://user/a b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		uri, err := url.Parse(text)
		if err != nil {
			return
		}
		p, err := PrincipalOf(&x509.Certificate{URIs: []*url.URL{uri}})
		if err != nil {
			return
		}
		if p.uri().String() != uri.String() {
			t.Fatalf("%q and %q are both %v", p.uri(), uri, p)
		}
		_, name, _ := strings.Cut(p.String(), "/")
		if name == "" || strings.Contains(name, "/") {
			t.Fatalf("%q is %v", uri, p)
		}
	})
}
