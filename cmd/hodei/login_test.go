package main

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func TestProviderIsAskedInTheWayThatFits(t *testing.T) {
	api, err := startFakeAPI(t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	api.provider = &hodeiv1.OidcProvider{Issuer: "https://provider", ClientId: "cli"}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.root}), 0o600); err != nil {
		t.Fatal(err)
	}
	device, browser := logInByDevice, logInByBrowser
	t.Cleanup(func() { logInByDevice, logInByBrowser = device, browser })
	var went string
	denied := errors.New("somebody has said no")
	var result error
	logInByDevice = func(_ context.Context, p *hodeiv1.OidcProvider, show func(string, string)) (string, error) {
		went = "device of " + p.GetIssuer()
		show("https://provider/device", "CODE")
		return "id-good", result
	}
	logInByBrowser = func(_ context.Context, p *hodeiv1.OidcProvider, _ func(string) error) (string, error) {
		went = "browser of " + p.GetIssuer()
		return "id-good", result
	}
	t.Setenv("SSH_CONNECTION", "somewhere") // nobody sits before the screen
	for want, f := range map[string]loginFlags{
		"device of https://provider":  {},
		"device of https://provider ": {oidc: true, tokenFile: "from a variable"},
		"browser of https://provider": {browser: true},
	} {
		options := hodei.LoginOptions{URL: api.url, CA: ca, Dir: t.TempDir()}
		config, err := f.login(t.Context(), nil, options)
		if err != nil || went != strings.TrimSpace(want) || config.Login != "lgn_1" {
			t.Errorf("%+v: %v, by the %s, %+v", f, err, went, config)
		}
		result = denied
		if _, err := f.login(t.Context(), nil, options); !errors.Is(err, denied) {
			t.Errorf("%+v: %v", f, err)
		}
		result = nil
	}
}

// What a provider calls its page may be anything; only pages of the web are opened.
func TestOnlyPagesOfTheWebAreOpened(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"", "file:///etc/passwd", "--help", "javascript:x", " https://provider", "httpsx://provider"} {
		if err := openBrowser(page); err == nil {
			t.Errorf("%q is opened", page)
		}
	}
}

func TestContextsAreNamedAfterTheirServers(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"https://hodei.example.com:7443": "hodei.example.com", "https://hodei.example.com": "hodei.example.com", "https://10.0.0.1:9000": "10.0.0.1-9000",
		"https://[::1]:7443": "1", "https://a/../../b": "a", "https://": "", "://": "",
	} {
		if got := hostName(server); got != want {
			t.Errorf("%s: got %q, want %q", server, got, want)
		}
	}
	for name, good := range map[string]bool{
		"a": true, "a.b-c_1": true, "": false, ".": false, "..": false, "../a": false, "a/b": false, "-1": false, "a b": false, strings.Repeat("a", 65): false,
	} {
		if contextName.MatchString(name) != good {
			t.Errorf("%q: %t", name, !good)
		}
	}
}

func TestCellsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "-", "ada": "ada", "Žofie 山": "Žofie 山", "a\nb\tc": "a\ufffdb\ufffdc", "\x1b[2J": "\ufffd[2J", "\u202eadmin": "\ufffdadmin",
		"\u200b": "\ufffd", "\xff": "\ufffd", strings.Repeat("a", 300): strings.Repeat("a", 197) + "...",
	} {
		if got := cell(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
