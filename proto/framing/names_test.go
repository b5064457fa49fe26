package framing

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("Ab-cD", 40)
	for _, c := range []struct{ name, canonical, lower string }{
		{"content-type", "Content-Type", "content-type"},
		{"Content-Type", "Content-Type", "content-type"},
		{"X-ID", "X-Id", "x-id"},
		{"www-authenticate", "Www-Authenticate", "www-authenticate"},
		{":path", ":path", ":path"},
		{"not a name", "not a name", "not a name"},
		{"", "", ""},
		{"Ä-[@`{", "Ä-[@`{", "Ä-[@`{"}, // only letters of ASCII have another form
		{long, http.CanonicalHeaderKey(long), strings.ToLower(long)},
	} {
		canonical, lower := CanonicalNames(), LowerNames()
		for range 2 { // the second time it is known
			if got := canonical.Of(c.name); got != c.canonical {
				t.Errorf("the canonical form of %q is %q, want %q", c.name, got, c.canonical)
			}
			if got := lower.Of(c.name); got != c.lower {
				t.Errorf("%q is sent as %q, want %q", c.name, got, c.lower)
			}
		}
	}
}

// Whatever a peer names, it gets what the standard library makes of it, and does not make this side keep more than a bit.
func TestNamesKeepABoundedAmount(t *testing.T) {
	t.Parallel()
	name := rapid.StringMatching(`[A-Za-z0-9-]{1,80}`)
	rapid.Check(t, func(t *rapid.T) {
		canonical, lower := CanonicalNames(), LowerNames()
		for _, name := range rapid.SliceOfN(name, 0, 100).Draw(t, "names") {
			if got, want := canonical.Of(name), http.CanonicalHeaderKey(name); got != want {
				t.Fatalf("the canonical form of %q is %q, want %q", name, got, want)
			}
			if got, want := lower.Of(name), strings.ToLower(name); got != want {
				t.Fatalf("%q is sent as %q, want %q", name, got, want)
			}
		}
		for _, known := range []map[string]string{canonical.known, lower.known} {
			if len(known) > 64 {
				t.Fatalf("%d names are kept", len(known))
			}
			for name := range known {
				if len(name) > 64 {
					t.Fatalf("a name of %d bytes is kept", len(name))
				}
			}
		}
	})
}

func TestNamesAreMadeOnce(t *testing.T) {
	t.Parallel()
	made := 0
	names := Names{form: func(name string) string { made++; return "made of " + name }}
	ask := func(name string, want int) {
		t.Helper()
		before := made
		for range 3 {
			if got := names.Of(name); got != "made of "+name {
				t.Fatalf("%q is %q", name, got)
			}
		}
		if made-before != want {
			t.Errorf("%q was made %d times, want %d", name, made-before, want)
		}
	}
	ask(strings.Repeat("x", 64), 1)
	ask(strings.Repeat("x", 65), 3)
	for i := range 63 {
		ask(fmt.Sprint("name-", i), 1)
	}
	ask("one-too-many", 3)
	ask("name-0", 0)
	if len(names.known) != 64 {
		t.Errorf("%d names are kept", len(names.known))
	}
}
