package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// drivers run the table of cases with one client each. They are started in the root of the project.
var drivers = map[string][]string{
	"go":           {"go", "run", "-race", "./clients/go/conformance"},
	"typescript":   {"npm", "run", "--silent", "--prefix", "clients/typescript", "conformance"},
	"browser":      {"npm", "run", "--silent", "--prefix", "clients/typescript", "conformance"},
	"python":       {"clients/python/.venv/bin/python", "clients/python/tests/conformance.py"},
	"python-async": {"clients/python/.venv/bin/python", "clients/python/tests/conformance.py"},
}

// TestClients runs every case of the table with every client against the same server. A case that a client does not report fails.
func TestClients(t *testing.T) {
	t.Parallel()
	table, err := filepath.Abs("../clients/conformance/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Cases []struct {
			Name string            `json:"name"`
			Skip map[string]string `json:"skip"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	ground := newConformance(t)
	for client, driver := range drivers {
		t.Run(client, func(t *testing.T) {
			reports := ground.run(t, client, table, driver)
			for _, c := range cases.Cases {
				t.Run(c.Name, func(t *testing.T) {
					switch r, ok := reports[c.Name]; {
					case !ok:
						t.Error("the client did not run this case")
					case r.Skipped != "" && c.Skip[client] == "":
						t.Errorf("the client left the case out, which the table does not allow: %s", r.Skipped)
					case r.Skipped == "" && !r.OK:
						t.Error(r.Message)
					}
				})
			}
		})
	}
}

// report is what a driver says of a case.
type report struct {
	Case    string `json:"case"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
	Skipped string `json:"skipped"`
}

// conformance is what the cases run against.
type conformance struct {
	world     *world
	control   *httptest.Server
	variables map[string]string
	env       []string
	restarts  sync.Mutex
}

func newConformance(t *testing.T) *conformance {
	t.Helper()
	origin := freeAddress(t)
	w := newWorld(t, "--cors-origin", "http://"+origin)
	w.agent("w1", "--slots", "32", "--cpus", "4")
	admin, viewer := w.apiToken("--user", "admin"), w.apiToken("--user", "admin", "--grant", "viewer@*")
	full := newWorld(t, "--max-unfinished-jobs", "1", "--cors-origin", "http://"+origin)
	full.submit("--", "true") // nobody runs it
	other := &world{t: t, dir: t.TempDir(), options: []string{"--cors-origin", "http://" + origin}, binary: buildVersion(t, "9.0.0")}
	other.start("127.0.0.1:0")
	c := &conformance{
		world: w,
		env:   []string{"HODEI_URL=" + w.url, "HODEI_CA=" + w.ca(), "HODEI_TOKEN=" + admin},
		variables: map[string]string{
			"url": w.url, "ca": w.ca(), "cert": filepath.Join(w.dir, "tls/admin.pem"), "key": filepath.Join(w.dir, "tls/admin-key.pem"),
			"token": admin, "viewer_token": viewer, "expired_token": w.apiToken("--user", "admin", "--ttl", "1s"),
			"dead_url": "https://" + freeAddress(t), "other_ca": other.ca(),
			"other_version_url": other.url, "other_version_ca": other.ca(), "other_version_token": admin,
			"full_url": full.url, "full_ca": full.ca(), "full_token": full.apiToken("--user", "admin"),
			"browser_origin": "http://" + origin, "empty_home": t.TempDir(),
		},
	}
	c.variables["config_home"] = c.contexts(t)
	c.control = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.control.Close)
	return c
}

// contexts writes a file of contexts: one with a token, one that knows the server by its pin, one with another pin.
func (c *conformance) contexts(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	token := filepath.Join(home, "token")
	text := fmt.Sprintf("current = 'good'\n[contexts.good]\nurl = %q\nca = %q\ntoken_file = %q\n", c.world.url, c.world.ca(), token)
	for name, pin := range map[string]string{"pinned": c.world.pin(), "wrong-pin": "sha256:" + strings.Repeat("0", 64)} {
		text += fmt.Sprintf("[contexts.%s]\nurl = %q\nca_pin = %q\ntoken_file = %q\n", name, c.world.url, pin, token)
	}
	if err := os.MkdirAll(filepath.Join(home, "hodei"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{token: c.variables["token"] + "\n", filepath.Join(home, "hodei/config.toml"): text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// serve does what a case asks of the test.
func (c *conformance) serve(out http.ResponseWriter, r *http.Request) {
	out.Header().Set("Access-Control-Allow-Origin", "*") // a page asks too
	switch r.URL.Path {
	case "/restart":
		c.restarts.Lock()
		defer c.restarts.Unlock()
		c.world.server.kill()
		c.world.restart()
	case "/connections":
		fmt.Fprint(out, settledConnections(c.world.url))
	default:
		http.NotFound(out, r)
	}
}

// run starts a driver and returns what it reports, by case.
func (c *conformance) run(t *testing.T, client, table string, driver []string) map[string]report {
	t.Helper()
	settings, err := json.Marshal(map[string]any{"cases": table, "client": client, "control": c.control.URL, "variables": c.variables})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), driver[0], driver[1:]...)
	cmd.Dir = ".."
	cmd.Env = append(append(os.Environ(), person(t, "")...), c.env...)
	cmd.Env = append(cmd.Env, "HODEI_CONFORMANCE="+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errors := new(safeBuffer)
	cmd.Stderr = errors
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the driver: %v", err)
	}
	reports := make(map[string]report)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Errorf("the driver printed %q", lines.Text())
			continue
		}
		reports[r.Case] = r
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the driver ended with %v:\n%s", err, errors)
	}
	return reports
}

// ca is the file by which clients know the server.
func (w *world) ca() string { return filepath.Join(w.dir, "tls/ca.pem") }

// apiToken makes a token for a script and returns its secret.
func (w *world) apiToken(args ...string) string {
	w.t.Helper()
	secret, _ := w.token(append([]string{"--api"}, args...)...)
	return secret
}

// freeAddress is one on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// buildVersion builds the command line as a release of another version.
func buildVersion(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hodei")
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", path, "github.com/hodei-jobs/hodei/cmd/hodei").CombinedOutput()
	if err != nil {
		t.Fatalf("building version %s: %v\n%s", version, err, out)
	}
	return path
}

// settledConnections counts the connections that a server has, when their number no longer changes.
func settledConnections(url string) int {
	port, _ := strconv.Atoi(url[strings.LastIndex(url, ":")+1:])
	for count, same := -1, 0; ; {
		data, _ := os.ReadFile("/proc/net/tcp")
		now := 0
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == "01" {
				now++
			}
		}
		if same++; now != count {
			count, same = now, 0
		}
		if same == 10 {
			return count
		}
		<-time.After(50 * time.Millisecond)
	}
}

// The example of a page does what it shows: it runs a job, follows it, and cancels another one.
func TestPageExample(t *testing.T) {
	t.Parallel()
	origin := freeAddress(t)
	w := newWorld(t, "--cors-origin", "http://"+origin)
	w.agent("w1")
	cmd := exec.CommandContext(t.Context(), "npm", "run", "--silent", "--prefix", "../clients/typescript", "example")
	cmd.Env = append(os.Environ(), "ORIGIN=http://"+origin, "HODEI_URL="+w.url, "HODEI_CA="+w.ca(), "HODEI_TOKEN="+w.apiToken())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	const want = "<b>one</b>\ntwo\nJob ID succeeded.\nstarted\njob from a page (ID) was canceled: canceled on request: canceled in the page\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: it showed %q, want %q", err, out, want)
	}
}
