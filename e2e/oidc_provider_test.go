package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/hodei-jobs/hodei/clients/go/oidclogin"
	"github.com/hodei-jobs/hodei/e2e/oidctest"
)

// startProvider starts an OIDC provider and returns it with the settings that reach it.
func startProvider(t *testing.T, args ...string) (*oidctest.Provider, oidclogin.Config) {
	t.Helper()
	p := oidctest.Start(t, args...)
	return p, oidclogin.Config{Issuer: p.URL, ClientID: oidctest.ClientID}
}

// answerDevice says yes or no to the device that shows a code. What goes wrong fails the test.
func answerDevice(t *testing.T, p *oidctest.Provider, who string, allow bool) func(address, code string) {
	t.Helper()
	return func(address, code string) {
		if err := p.Device(address, code, who, allow); err != nil {
			t.Error(err)
		}
	}
}

// answerBrowser is a browser in which somebody logs in at once and says yes or no.
func answerBrowser(p *oidctest.Provider, who string, allow bool) func(address string) error {
	return func(address string) error {
		_, err := p.Browser(address, who, allow)
		return err
	}
}

func TestLoginsWithAProvider(t *testing.T) {
	t.Parallel()
	p, config := startProvider(t)
	for _, allow := range []bool{true, false} {
		byDevice, deviceErr := oidclogin.Device(t.Context(), config, answerDevice(t, p, oidctest.Ada, allow))
		byBrowser, browserErr := oidclogin.Browser(t.Context(), config, answerBrowser(p, oidctest.Ada, allow))
		for token, err := range map[string]error{"device:" + byDevice: deviceErr, "browser:" + byBrowser: browserErr} {
			if allow && (err != nil || strings.Count(token, ".") != 2) || !allow && !errors.Is(err, oidclogin.ErrDenied) {
				t.Errorf("allowed: %v, and the login gives %q, %v", allow, token, err)
			}
		}
	}
}

func TestCodeOfADeviceExpires(t *testing.T) {
	t.Parallel()
	_, config := startProvider(t, "-code-life=2s")
	token, err := oidclogin.Device(t.Context(), config, func(string, string) {})
	if !errors.Is(err, oidclogin.ErrExpired) {
		t.Errorf("a code that nobody enters gives %q, %v", token, err)
	}
}

func TestProviderRestartsDuringALogin(t *testing.T) {
	t.Parallel()
	p, config := startProvider(t)
	token, err := oidclogin.Device(t.Context(), config, func(string, string) {
		p.Stop()
		p.Restart(t)
	})
	if err == nil || !strings.Contains(err.Error(), p.URL) {
		t.Errorf("a provider that has forgotten the login gives %q, %v", token, err)
	}
	p.Stop()
	if token, err := oidclogin.Browser(t.Context(), config, nil); err == nil || !strings.Contains(err.Error(), "cannot be asked how to log in") {
		t.Errorf("a provider that is away gives %q, %v", token, err)
	}
}
