// Package oidctest runs the OIDC provider of the tests as a process of its own, and does what its people would do in their browsers.
package oidctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// What the provider knows. Groups come with the scope "groups", in the claim of that name.
const (
	ClientID = "hodei-cli" // a public client; its redirect address is http://127.0.0.1/callback with any port
	Ada      = "ada"       // has the verified address ada@example.org and the group "devs"
	Eve      = "eve"       // has the group "admins"; her address eve@example.org is not verified
)

// patience is a limit for hanging, not a measure.
const patience = 60 * time.Second

// binary builds the provider once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hodei-oidc-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "oidcprovider")
	out, err := exec.Command("go", "build", "-o", path, "github.com/hodei-jobs/hodei/e2e/oidcprovider").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the OIDC provider: %w\n%s", err, out)
	}
	return path, nil
})

// Provider is one that runs. Its methods but Stop and Restart may be called from several goroutines at once.
type Provider struct {
	// URL is the issuer.
	URL    string
	args   []string
	cmd    *exec.Cmd
	stderr *bytes.Buffer // read only once the process has ended
}

// Start starts a provider, which ends with the test. Arguments are those of the program, "-code-life=3s" for example.
func Start(t testing.TB, args ...string) *Provider {
	t.Helper()
	p := &Provider{args: args}
	p.run(t, "0")
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("the OIDC provider wrote:\n%s", p.stderr)
		}
	})
	return p
}

func (p *Provider) run(t testing.TB, port string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd, p.stderr = exec.Command(path, append([]string{"-port", port}, p.args...)...), new(bytes.Buffer)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready struct {
		URL string `json:"url"`
	}
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		p.Stop()
		t.Fatalf("the OIDC provider did not start: %v\n%s", err, p.stderr)
	}
	p.URL = ready.URL
}

// Stop kills the provider, as when it is away.
func (p *Provider) Stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// Restart starts a provider that was stopped at its old address. It has forgotten everything and has new keys.
func (p *Provider) Restart(t testing.TB) {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	p.run(t, u.Port())
}

// Rotate makes the provider sign with a new key. The old ones stay published, unless they are withdrawn.
func (p *Provider) Rotate(t testing.TB, withdraw bool) {
	t.Helper()
	if _, err := post(browser(), p.URL+"/rotate", url.Values{"withdraw": {fmt.Sprint(withdraw)}}); err != nil {
		t.Fatal(err)
	}
}

// Device opens the address that a device shows, enters its code as one of the people, and says yes or no.
func (p *Provider) Device(verificationURI, userCode, who string, allow bool) error {
	_, err := p.fill(verificationURI, who, allow, url.Values{"user_code": {userCode}})
	return err
}

// Browser opens the address of a login in a browser, logs in as one of the people, says yes or no, and follows the way back to the
// program that has begun the login. It returns the page that the program shows.
func (p *Provider) Browser(address, who string, allow bool) (string, error) {
	return p.fill(address, who, allow, url.Values{})
}

// fill opens a page with a form and sends the form.
func (p *Provider) fill(address, who string, allow bool, values url.Values) (string, error) {
	client := browser()
	response, err := client.Get(address)
	if err != nil {
		return "", err
	}
	if _, err := read(response); err != nil {
		return "", err
	}
	form := response.Request.URL // where redirects have led
	if id := form.Query().Get("id"); id != "" {
		values.Set("id", id)
	}
	values.Set("username", who)
	values.Set("password", who+"-password")
	values.Set("action", map[bool]string{true: "allow", false: "deny"}[allow])
	return post(client, form.String(), values)
}

func post(client *http.Client, address string, values url.Values) (string, error) {
	response, err := client.PostForm(address, values)
	if err != nil {
		return "", err
	}
	return read(response)
}

func read(response *http.Response) (string, error) {
	defer response.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", response.Request.URL, response.Status, body)
	}
	return string(body), err
}

func browser() *http.Client {
	return &http.Client{Timeout: patience}
}
