package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hodei-jobs/hodei/e2e/oidctest"
)

// person has a folder for settings of their own, and nothing in their environment. It is made with contexts in it, if there are some.
func person(t *testing.T, contexts string) []string {
	t.Helper()
	home := t.TempDir()
	if contexts != "" {
		if err := os.MkdirAll(filepath.Join(home, "hodei"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, "hodei/config.toml"), []byte(contexts), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"XDG_CONFIG_HOME=" + home, "XDG_DATA_HOME=" + home}
	for _, name := range []string{"URL", "CA", "CA_PIN", "CERT", "KEY", "TOKEN", "TOKEN_FILE", "CONTEXT", "NAMESPACE"} {
		env = append(env, "HODEI_"+name+"=")
	}
	return env
}

// administrator is the one whose certificate is in the server's folder, with the context that `hodei dev` writes.
func (w *world) administrator() []string {
	return person(w.t, fmt.Sprintf("current = 'dev'\n[contexts.dev]\nurl = %q\nca = %q\ncert = %q\nkey = %q\n", w.url,
		filepath.Join(w.dir, "tls/ca.pem"), filepath.Join(w.dir, "tls/admin.pem"), filepath.Join(w.dir, "tls/admin-key.pem")))
}

// succeeds runs the command line as somebody, and returns what it prints.
func succeeds(t *testing.T, env []string, args ...string) string {
	t.Helper()
	r := runHodei(t, env, nil, args...)
	if r.code != 0 {
		t.Fatalf("hodei %q ended with %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// shown waits until a program that runs has written what the pattern says, and returns its groups.
func (d *daemon) shown(t *testing.T, pattern string) []string {
	t.Helper()
	var found []string
	await(t, pattern, func() bool {
		select {
		case <-d.exited:
			t.Fatalf("the program ended before it wrote %q:\n%s", pattern, d.output)
		default:
		}
		found = regexp.MustCompile(pattern).FindStringSubmatch(d.output.String())
		return found != nil
	})
	return found[1:]
}

func TestAccessAsTheDocumentDescribesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	var script strings.Builder
	for _, heading := range []string{"Roles", "Scripts", "People", "When something is in wrong hands", "Reviews"} {
		for _, block := range shellBlocks(t, "docs/access.md", heading) {
			script.WriteString(block)
		}
	}
	out := shell(t, w.administrator(), script.String()+"cat access.csv\n")
	for _, want := range []string{
		"user/ada has the role operator in namespace web\n", "role deployer permits jobs.read jobs.submit logs.read\n", "yes: user/admin has the role admin in *\n",
		"Principal:  user/ci\n", "\nbuilt\n", "no: ", "\nci sets no secrets\n", "Proved by:  certificate lgn_", "\nfrom ada\n", "user/eve is revoked\n",
		"user/ada,binding,operator,web,", "nothing was changed: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

func TestPeopleLogInWithAProvider(t *testing.T) {
	t.Parallel()
	p, _ := startProvider(t)
	w := newWorld(t, "--oidc-issuer", p.URL, "--oidc-client-id", oidctest.ClientID)
	w.must("admin", "binding", "add", "group/devs", "submitter", "-n", "web")
	w.agent("w1")
	ada := person(t, "")
	login := startDaemon(t, ada, "hodei", "login", w.url, "--ca-pin", w.pin(), "--device")
	device := login.shown(t, `Open (\S+) in a browser, on any machine, and enter the code (\S+)\n`)
	if err := p.Device(device[0], device[1], oidctest.Ada, true); err != nil {
		t.Fatal(err)
	}
	if code := login.awaitExit(t); code != 0 {
		t.Fatalf("the login ended with %d", code)
	}
	if who := succeeds(t, ada, "auth", "whoami"); !strings.Contains(who, "user/ada@example.org\n") || !strings.Contains(who, "submitter  web        group/devs") {
		t.Errorf("ada is:\n%s", who)
	}
	if out := succeeds(t, ada, "run", "--namespace", "web", "--", "echo", "from ada"); out != "from ada\n" {
		t.Errorf("her job printed %q", out)
	}
	if r := runHodei(t, ada, nil, "run", "--", "true"); r.code == 0 {
		t.Error("she may submit in a namespace where nobody has let her")
	}

	// In the browser of this machine, and again, so that the context has her CA. A page that she refuses is no login.
	tools := t.TempDir()
	page := filepath.Join(tools, "page")
	opener := "#!/bin/sh\nprintf '%s\\n' \"$1\" > " + page + ".new && mv " + page + ".new " + page + "\n"
	if err := os.WriteFile(filepath.Join(tools, "xdg-open"), []byte(opener), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, allow := range []bool{true, false} {
		login := startDaemon(t, append(ada, "PATH="+tools+":"+os.Getenv("PATH")), "hodei", "login", "--browser")
		var address []byte
		await(t, "the browser", func() (there bool) {
			var err error
			address, err = os.ReadFile(page)
			return err == nil
		})
		if err := os.Remove(page); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Browser(strings.TrimSpace(string(address)), oidctest.Ada, allow); err != nil {
			t.Error(err)
		}
		if code := login.awaitExit(t); (code == 0) != allow {
			t.Errorf("allowed: %t, and the login ended with %d: %s", allow, code, login.output)
		}
	}
	succeeds(t, ada, "logout")
	if r := runHodei(t, ada, nil, "auth", "whoami"); r.code == 0 {
		t.Error("whoever has logged out is known still")
	}
}

func TestAdministratorsLetPeopleIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	grace, eve := person(t, ""), person(t, "")
	request := func(env []string, name string) (*daemon, string) {
		login := startDaemon(t, env, "hodei", "login", w.url, "--ca-pin", w.pin(), "--request", name)
		return login, login.shown(t, `hodei admin login approve (\S+)`)[0]
	}
	login, code := request(grace, "grace")
	if waiting := w.must("admin", "login", "requests"); !strings.Contains(waiting, code+"  grace") {
		t.Errorf("the requests are:\n%s", waiting)
	}
	w.must("admin", "login", "approve", code, "--ttl", "2h")
	if code := login.awaitExit(t); code != 0 {
		t.Fatalf("the login ended with %d", code)
	}
	if who := succeeds(t, grace, "auth", "whoami"); !strings.Contains(who, "user/grace\n") {
		t.Errorf("grace is:\n%s", who)
	}
	login, code = request(eve, "admin2")
	w.must("admin", "login", "deny", code)
	if code := login.awaitExit(t); code == 0 || !strings.Contains(login.output.String(), "has denied") {
		t.Errorf("a request that was denied ended with %d", code)
	}

	// What is revoked is refused from then on, in whatever context; a stolen copy too, and logging out is as good as done.
	w.must("admin", "revoke", "user/grace", "--reason", "left")
	if r := runHodei(t, grace, nil, "auth", "whoami"); r.code != 4 {
		t.Errorf("whoever is revoked gets %+v", r)
	}
	succeeds(t, grace, "logout")
	w.must("admin", "reinstate", "user/grace")
}
