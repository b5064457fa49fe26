package api

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/retention"
	"github.com/hodei-jobs/hodei/service/secrets"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

// world is the API as it is served, without a network: calls go straight to the server, and their callers prove themselves by tokens.
type world struct {
	config Config
	gate   *gate
	public *connect.Server
	store  store.Store
	served *API
	dir    string // of the authority
}

// written is a store whose writes go through the orchestrator.
type written struct {
	store.Store
	jobs *orchestrator.Orchestrator
}

func (w *written) Commit(ctx context.Context, batch *store.Batch) error {
	return w.jobs.Commit(ctx, batch)
}

// quiet are metrics that nobody reads.
type quiet struct{ silent }

func (quiet) LogBytes(int)      {}
func (quiet) OutputRefused(int) {}

func newWorld(t testing.TB) *world {
	t.Helper()
	db, logger := memstore.New(), slog.New(slog.DiscardHandler)
	records := &written{Store: db}
	key, err := secrets.OpenKeyFile(t.TempDir()+"/secrets.key", true)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	authority, err := identity.OpenAuthority(dir, identity.AuthorityConfig{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: db, dir: dir}
	c := &w.config
	c.Logs = logs.New(db, quiet{}, logger)
	c.Secrets = secrets.New(records, key, time.Now, logger)
	c.Retention = retention.New(records, c.Logs, time.Now, logger)
	c.Fleet = fleet.New(c.Logs, c.Secrets, quiet{}, logger)
	var n atomic.Uint64
	c.Jobs, err = orchestrator.Open(t.Context(), orchestrator.Config{
		Store: db, Bus: bus.New(1024), Dispatcher: silent{}, Metrics: silent{}, Logger: logger, Clock: time.Now, CheckSpec: c.Secrets.Check,
		NewJobID: func(job.ID) job.ID { return job.NewID(time.Now(), 0, n.Add(1)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	records.jobs = c.Jobs
	c.Fleet.Attach(c.Jobs)
	recheck := func() { w.gate.live.recheck() }
	c.Authority, c.Tokens = authority, identity.NewTokens(records, time.Now)
	c.Enrolment = identity.NewEnrolment(identity.EnrolmentConfig{Authority: authority, Tokens: c.Tokens})
	c.Access, err = access.Open(t.Context(), records, Permissions(), time.Now, recheck, logger)
	if err == nil {
		c.Credentials, err = identity.OpenCredentials(t.Context(), records, authority, time.Now, recheck, logger)
	}
	if err == nil {
		c.AccessTokens, err = identity.OpenAccessTokens(dir, time.Now)
	}
	if err == nil {
		var key ed25519.PrivateKey
		if key, err = audit.OpenKey(t.TempDir()); err == nil {
			c.Trail, err = audit.New(audit.Config{Store: db, Key: key, Clock: time.Now, Logger: logger})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Logger, c.Meters, c.Tracers = logger, metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider()
	served, err := New(*c)
	if err != nil {
		t.Fatal(err)
	}
	w.gate, w.served = served.gate, served
	if w.public, err = publicServer(*c, w.gate); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Jobs.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return w
}

// token is an access token for a user ("ada") or an agent ("agent/wkr_1").
func (w *world) token(t testing.TB, who string) string {
	t.Helper()
	p := identity.Principal{Kind: identity.User, Name: who}
	token, _, err := w.config.AccessTokens.Issue(p, identity.Fingerprint{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// grant gives a user a role.
func (w *world) grant(t testing.TB, subject, role, namespace string) {
	t.Helper()
	admin := &access.Caller{Subjects: []string{access.Administrator}}
	if _, err := w.config.Access.CreateBinding(t.Context(), admin, access.Binding{Subject: subject, Role: role, Namespace: namespace}); err != nil {
		t.Fatal(err)
	}
}

// exchange is the stream of one call.
type exchange struct {
	request  proto.Message
	received bool
	answers  []proto.Message
	limit    int // of answers; then the caller leaves
}

// Receive implements connect.ServerStream.
func (e *exchange) Receive(msg any) error {
	if e.received {
		return io.EOF
	}
	e.received = true
	proto.Merge(msg.(proto.Message), e.request) //nolint:forcetypeassert // all are
	return nil
}

// SendHeaders implements connect.ServerStream.
func (e *exchange) SendHeaders() error { return nil }

// Send implements connect.ServerStream.
func (e *exchange) Send(msg any) error {
	e.answers = append(e.answers, proto.Clone(msg.(proto.Message))) //nolint:forcetypeassert // all are
	if e.limit > 0 && len(e.answers) >= e.limit {
		return context.Canceled
	}
	return nil
}

// call makes a call and returns its answers. Of a stream it takes the first answer only.
func (w *world) call(ctx context.Context, token, procedure string, request proto.Message) ([]proto.Message, error) {
	info := &connect.CallInfo{PeerAddr: "192.0.2.1:1234"}
	if token != "" {
		info.RequestHeader().Set("Authorization", "Bearer "+token)
	}
	e := &exchange{request: request, limit: 1}
	err := w.public.Call(ctx, procedure, info, e)
	if len(e.answers) > 0 && connect.CodeOf(err) == connect.CodeCanceled {
		err = nil
	}
	return e.answers, err
}

// trail returns the records of the audit trail.
func (w *world) trail(t testing.TB) []chain.Record {
	t.Helper()
	lines, err := w.store.ListRecords(t.Context(), chain.Kind)
	if err != nil {
		t.Fatal(err)
	}
	records := make([]chain.Record, len(lines))
	for i := range lines {
		if records[i], err = chain.ParseRecord(lines[i].Value); err != nil {
			t.Fatal(err)
		}
	}
	return records
}

// userMethods are the methods of the public and the operators' API.
func userMethods(t *testing.T) []protoreflect.MethodDescriptor {
	t.Helper()
	var all []protoreflect.MethodDescriptor
	for _, m := range methods(t) {
		if !strings.HasPrefix(string(m.FullName()), "hwp.") {
			all = append(all, m)
		}
	}
	return all
}

func procedureOf(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}
