// Package hodei_test holds the rules of the house: who may import whom, and how large things may grow.
package hodei_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/hodei-jobs/hodei/"

// rule says what a package may import of this module and of others. Patterns are those of path.Match, with a last "..." for
// everything below. The standard library is always allowed but for what denied names.
type rule struct {
	pkg     string
	own     []string // packages of this module
	foreign []string // other modules; nil: any
	denied  []string // of the standard library
	why     string
}

// none is a list of foreign packages without one.
var none = []string{}

var rules = []rule{
	{"service/job", nil, none, []string{"net", "net/...", "os", "os/...", "sync", "sync/...", "math/rand", "math/rand/..."}, "the domain is pure: time and chance are arguments"},
	{"service/scheduler", []string{"service/job"}, none, []string{"net", "os", "sync", "math/rand", "math/rand/..."}, "the scheduler is pure"},
	{"service/scheduler/simulator", []string{"service/job", "service/scheduler"}, none, []string{"net", "net/...", "os", "os/...", "sync", "sync/..."}, "a simulation has a time of its own, and whoever starts it reads the files"},
	{"service/store", []string{"service/job"}, none, nil, "a port knows the domain only"},
	{"service/bus", []string{"service/job"}, none, nil, "a port knows the domain only"},
	{"service/orchestrator", []string{"service/audit/chain", "service/job", "service/store", "service/bus", "service/scheduler", "service/audit/chain"}, none, nil, "use cases know no adapter, no protos and no transport"},
	{"service/logs", []string{"service/job", "service/store", "service/logs/lines"}, []string{"github.com/klauspost/compress/zstd"}, nil, "use cases know no adapter, no protos and no transport"},
	{"service/logs/lines", nil, none, []string{"net", "net/...", "os", "os/...", "sync", "sync/..."}, "what a log says by lines is pure: bytes in, values out"},
	{"service/audit/chain", nil, none, []string{"net", "net/...", "os", "os/...", "sync", "sync/...", "math/rand", "math/rand/..."}, "the form of the trail is pure: time is an argument, and others read and write"},
	{"service/durable", nil, none, []string{"net", "net/..."}, "files are written the same way whatever is in them"},
	{"service/audit", []string{"service/durable", "service/job", "service/store", "service/audit/chain"}, none, nil, "use cases know no adapter, no protos and no transport"},
	{"service/fleet", []string{"service/job", "service/store", "service/logs", "service/orchestrator"}, none, nil, "use cases know no adapter, no protos and no transport"},
	{"service/access", []string{"service/job", "service/store/mirror"}, none, nil, "use cases know no adapter, no protos and no transport"},
	{"service/identity", []string{"service/access", "service/audit/chain", "service/durable", "service/job", "service/store", "service/store/mirror"}, []string{"github.com/oklog/ulid/v2", "github.com/golang-jwt/jwt/v5"}, nil, "use cases know no adapter, no protos and no transport"},
	{"service/identity/oidc", []string{"proto/issuer", "service/job"}, []string{"github.com/coreos/go-oidc/v3/oidc", "github.com/go-jose/go-jose/v4", "golang.org/x/sync/singleflight"}, nil, "the adapter of login providers knows the domain only, and no use case knows it"},
	{"service/retention", []string{"service/job", "service/store"}, none, nil, "use cases know no adapter, no protos and no transport"},
	{"service/secrets", []string{"service/job", "service/store"}, none, nil, "use cases know no adapter, no protos and no transport"},
	{"service/telemetry", nil, nil, nil, "telemetry knows nothing of what it measures"},
	{"service/api", []string{"gen/...", "proto/codec", "service/job", "service/store", "service/access", "service/audit", "service/audit/chain", "service/bus", "service/fleet", "service/identity", "service/logs", "service/logs/lines", "service/orchestrator", "service/ratelimit", "service/retention", "service/scheduler", "service/secrets"}, nil, nil, "the API adapter never meets another adapter"},
	{"service/h2", []string{"proto/framing", "proto/framing/wiretest"}, []string{"golang.org/x/net/http2", "golang.org/x/net/http2/hpack", "golang.org/x/net/http/httpguts"}, nil, "a transport knows nothing of what it carries"},
	{"service/ratelimit", nil, []string{"golang.org/x/time/rate"}, []string{"os", "os/..."}, "limits know nothing of what they limit"},
	{"service/gate", []string{"service/ratelimit"}, none, []string{"net/http", "os/exec"}, "who may connect depends on nothing that is said afterwards"},
	{"service/store/mirror", []string{"service/store"}, none, nil, "what is kept in memory too depends on no engine"},
	{"service/store/storerecord", []string{"service/job", "service/store"}, []string{"google.golang.org/protobuf/encoding/protowire"}, nil, "the form of records depends on no engine"},
	{"service/store/storelog", []string{"service/job", "service/store", "service/store/storerecord"}, []string{"github.com/klauspost/compress/s2"}, nil, "how stores keep jobs depends on no engine"},
	{"service/store/storetest", []string{"service/job", "service/store", "service/store/storetest/..."}, []string{"pgregory.net/rapid"}, nil, "the suite knows the port only"},
	{"service/store/pgstore/pgtest", nil, none, nil, "a database for tests knows nothing of what is tested on it"},
	{"service/store/*", []string{"service/job", "service/store", "service/store/storerecord", "service/store/storelog"}, nil, nil, "stores never import each other"},
	{"service", []string{"service/..."}, nil, nil, "the composition root knows the server's parts"},
	{"agent/runner", nil, none, nil, "the port of runners knows the standard library only"},
	{"agent/runner/...", []string{"agent/runner"}, []string{"golang.org/x/sys/unix"}, nil, "runners know their port only"},
	{"agent/mask", nil, []string{"golang.org/x/sys/cpu"}, []string{"net", "os", "os/...", "time"}, "masking is pure: bytes in, bytes out"},
	{"agent", []string{"gen/hwp/...", "proto/codec", "agent/..."}, nil, nil, "agent and service meet only in gen"},
	{"clients/go/internal/h2", []string{"proto/framing", "proto/framing/wiretest"}, []string{"golang.org/x/net/http2", "golang.org/x/net/http2/hpack", "golang.org/x/net/http/httpguts"}, nil, "a transport knows nothing of what it carries"},
	{"clients/go/oidclogin", []string{"proto/issuer"}, []string{"github.com/coreos/go-oidc/v3/oidc", "golang.org/x/oauth2"}, nil, "a login knows the provider only, not what its token is for"},
	{"examples/...", []string{"clients/go", "clients/go/hodeitest", "gen/hodei/v1"}, none, nil, "examples use what users have"},
	{"clients/go/hodeitest", []string{"clients/go", "gen/...", "agent", "agent/runner/procrunner", "service"}, none, nil, "a server for tests is a whole one"},
	{"clients/go/conformance", []string{"clients/go", "gen/..."}, nil, nil, "what every client must do is tried as users do it"},
	{"clients/go", []string{"gen/...", "proto/codec", "clients/go/internal/h2"}, nil, nil, "a client knows the API only"},
	{"cmd/hodei-agent", []string{"agent"}, none, nil, "the small program is small because of what it does not import"},
	{"cmd/hodei/bench", []string{"clients/go", "gen/...", "agent", "agent/mask", "agent/runner/fakerunner", "service/job", "service/scheduler", "service/scheduler/simulator", "service/store", "service/store/..."}, nil, nil, "measurements use the product as users do, and a store and the scheduler alone"},
	{"cmd/hodei", []string{"service", "service/audit/chain", "service/scheduler/simulator", "agent/...", "clients/go", "clients/go/oidclogin", "cmd/hodei/bench", "gen/..."}, nil, nil, "commands are thin"},
	// The client and the protos are what users program against; a database and a login provider for tests are none of what is tested.
	{"e2e", []string{"clients/go", "clients/go/oidclogin", "e2e/oidctest", "gen/hodei/...", "service/store/pgstore/pgtest"}, nil, nil, "end-to-end tests see programs, not packages"},
	{"e2e/oidctest", nil, none, nil, "a login provider for tests knows nothing of what is tested with it"},
	{"e2e/oidcprovider", nil, []string{"github.com/go-jose/go-jose/v4", "github.com/zitadel/oidc/v3/..."}, nil, "a login provider for tests knows nothing of what is tested with it"},
	{"scripts/*", nil, none, nil, "scripts stand alone"},
	{"proto/framing/...", nil, []string{"golang.org/x/net/http2", "golang.org/x/net/http2/hpack"}, nil, "what both ends of a connection share knows neither"},
	{"proto/codec", nil, nil, nil, "how messages are encoded depends on no message"},
	{"proto/issuer", nil, none, nil, "what the server and its clients demand of a login provider depends on neither"},
	{"gen/...", []string{"gen/..."}, nil, nil, "generated"},
}

type listedPackage struct {
	ImportPath  string
	Imports     []string
	TestImports []string
	Standard    bool
}

func packages(t *testing.T) []listedPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,Standard", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listedPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == prefix || strings.HasPrefix(name, prefix+"/")
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if matches(p, name) {
			return true
		}
	}
	return false
}

func TestImports(t *testing.T) {
	t.Parallel()
	used := make([]bool, len(rules))
	for _, p := range packages(t) {
		name, own := strings.CutPrefix(p.ImportPath, module)
		if !own {
			continue // the root has tests only
		}
		at := -1
		for i := range rules {
			if matches(rules[i].pkg, name) {
				at = i
				break
			}
		}
		if at < 0 {
			t.Errorf("no rule covers %s: add one to this test, and think about what it may import", name)
			continue
		}
		used[at] = true
		imports := p.Imports
		if name == "e2e" { // it has nothing but tests
			imports = p.TestImports
		}
		for _, imported := range imports {
			rules[at].check(t, name, imported)
		}
	}
	for i, r := range rules {
		if !used[i] {
			t.Errorf("the rule for %q names a package that is gone; remove it", r.pkg)
		}
	}
}

func (r *rule) check(t *testing.T, name, imported string) {
	t.Helper()
	if within, own := strings.CutPrefix(imported, module); own {
		if !matchesAny(r.own, within) {
			t.Errorf("%s imports %s: %s", name, within, r.why)
		}
		return
	}
	standard := !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
	if standard && matchesAny(r.denied, imported) {
		t.Errorf("%s imports %s: %s", name, imported, r.why)
	}
	if !standard && r.foreign != nil && !matchesAny(r.foreign, imported) {
		t.Errorf("%s imports %s: %s", name, imported, r.why)
	}
}
