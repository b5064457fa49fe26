package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Whatever encodes a value, and whatever stands around it, the value cannot be had from what is left.
func TestEncodings(t *testing.T) {
	t.Parallel()
	encodings := map[string]func(string) string{
		"raw":        func(v string) string { return v },
		"base64":     func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) },
		"base64 url": func(v string) string { return base64.URLEncoding.EncodeToString([]byte(v)) },
		"base64 raw": func(v string) string { return base64.RawStdEncoding.EncodeToString([]byte(v)) },
		"hex":        func(v string) string { return hex.EncodeToString([]byte(v)) },
		"HEX":        func(v string) string { return strings.ToUpper(hex.EncodeToString([]byte(v))) },
		"query":      url.QueryEscape,
		"path":       url.PathEscape,
		"JSON":       func(v string) string { out, _ := json.Marshal(v); return string(out[1 : len(out)-1]) },
		"shell":      func(v string) string { return strings.ReplaceAll(v, "'", `'\''`) },
	}
	for name, encode := range encodings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				value := rapid.StringMatching(`[ -~é€]{6,30}`).Draw(t, "value")
				text := encode(value)
				masked := string(newSet(value).Mask([]byte("x=" + text + ";")))
				if strings.Contains(masked, text) || masked != "x=****;" && !strings.HasPrefix(name, "base64") {
					t.Fatalf("of %q as %q is left %q", value, text, masked)
				}
			})
		})
	}
}

// In the middle of other bytes the base64 of a value begins at any of three places; at most the characters that it shares
// with its neighbours are left.
func TestBase64InTheMiddle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SliceOfN(rapid.Byte(), 8, 40).Draw(t, "value")
		before, after := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "before"), rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "after")
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := encoding.EncodeToString(bytes.Join([][]byte{before, value, after}, nil))
			masked := newSet(string(value)).Mask([]byte(text))
			if len(masked) > len(replacement)+(len(before)+len(after))*4/3+8 || !bytes.Contains(masked, []byte(replacement)) {
				t.Fatalf("of %q is left %q", text, masked)
			}
		}
	})
}

// What the usual programs print is found.
func TestPrograms(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a-long-secret-0123456789/", 8)
	for name, c := range map[string]struct{ value, script, want string }{
		"echo":              {"it's a $ecret", `echo "$V"`, "****\n"},
		"base64":            {"it's a $ecret", `printf %s "$V" | base64`, "****\n"},
		"base64 of echo":    {"it's a $ecret!", `echo "$V" | base64`, "****"},
		"lines of base64":   {long, `printf %s "$V" | base64`, "****\n****\n****\n****\n"},
		"od":                {"it's a $ecret", `printf %s "$V" | od -An -tx1 | tr -d ' \n'`, "****"},
		"a shell's trace":   {"it's a $ecret", `sh -xc 'true "$V"'`, "****"},
		"a shell's listing": {"it's a $ecret", `sh -c 'export -p' | grep '^export V='`, "****"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("bash", "-c", c.script)
			cmd.Env = append(cmd.Environ(), "V="+c.value)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			masked := string(newSet(c.value).Mask(out))
			if !strings.Contains(masked, c.want) || strings.Contains(masked, "ecret") {
				t.Errorf("of %q is left %q, want %q", out, masked, c.want)
			}
		})
	}
}
