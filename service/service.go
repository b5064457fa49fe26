// Package service is the server: it puts the parts together and runs them. It is the only place that knows every adapter.
package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hodei-jobs/hodei/service/api"
	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/gate"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/retention"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/secrets"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
	"github.com/hodei-jobs/hodei/service/store/pgstore"
	"github.com/hodei-jobs/hodei/service/telemetry"
)

const (
	// busEvents is how many events a slow reader may be behind before it has to start over.
	busEvents = 16_384
	// drainTime is how long agents have to leave by themselves when the server stops.
	drainTime = 2 * time.Second
	// storeFolder is where in the data folder the embedded store lies.
	storeFolder = "store"
	// reconnectAfter is how long agents wait before they try again.
	reconnectAfter = time.Second
)

// Server is a Hodei server. Make it with New, then call Run.
type Server struct {
	config    Config
	store     store.Store
	failed    <-chan struct{} // closed when the store takes no more writes; nil: it never says so
	records   *records
	authority *identity.Authority
	tokens    *identity.Tokens
	identity  identities
	trail     *audit.Keeper
	secrets   *secrets.Secrets
	jobs      *orchestrator.Orchestrator
	fleet     *fleet.Fleet
	logs      *logs.Service
	retention *retention.Keeper
	telemetry *telemetry.Telemetry
	metrics   *telemetry.Metrics
	disk      *diskGuard // nil: the store is not on a disk of this server, or is not watched
	api, ops  *http.Server
	listener  net.Listener
	opsListen net.Listener // nil: none
	stopping  atomic.Bool
}

// New opens the data folder, recovers the jobs in it and listens. Errors say what stands in the way: another server on the
// same folder, a port in use, a damaged store. After New, Run must be called, or Close.
func New(ctx context.Context, config Config) (*Server, error) {
	config = config.withDefaults()
	if config.DataDir == "" {
		return nil, errors.New("no data folder was given; set --data-dir")
	}
	for _, origin := range config.CORSOrigins {
		if err := api.CheckOrigin(origin); err != nil {
			return nil, fmt.Errorf("%w; see --cors-origin", err)
		}
	}
	s := &Server{config: config}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) build(ctx context.Context) error {
	if err := s.listen(); err != nil { // first, because a port in use is the likeliest trouble and the cheapest to see
		return err
	}
	var err error
	dir := s.config.DataDir
	// The store first: its lock keeps a second server from touching anything.
	if err := s.openStore(ctx); err != nil {
		return err
	}
	if s.authority, err = identity.OpenAuthority(filepath.Join(dir, "tls"), identity.AuthorityConfig{
		Hosts: s.config.Hosts, Now: time.Now, AgentLife: s.config.AgentCertificateLife,
	}); err != nil {
		return err
	}
	if s.telemetry, err = telemetry.Setup(ctx, "hodei", s.config.Version); err != nil {
		return err
	}
	metrics, err := s.telemetry.NewMetrics(nil)
	if err != nil {
		return err
	}
	s.records = &records{Jobs: s.store, Records: s.store}
	s.tokens = identity.NewTokens(s.records, time.Now)
	s.logs = logs.New(s.store, metrics, s.config.Logger)
	s.retention = retention.New(s.records, s.logs, time.Now, s.config.Logger)
	s.watchDisk()
	if err := s.openSecrets(); err != nil {
		return err
	}
	s.fleet = fleet.New(s.logs, s.secrets, metrics, s.config.Logger)
	s.jobs, err = orchestrator.Open(ctx, orchestrator.Config{
		Store: s.store, Bus: bus.New(busEvents), Dispatcher: s.fleet, Metrics: metrics, Logger: s.config.Logger,
		Clock: time.Now, NewJobID: newJobID, MaxUnfinished: s.config.MaxUnfinishedJobs,
		Scheduling: scheduler.Options{Reservations: s.config.Reservations, SampleAbove: s.config.SampleAbove}, Lease: s.config.Lease,
		Admit: s.disk.admit, CheckSpec: s.secrets.Check,
	})
	if err != nil {
		return err
	}
	s.fleet.Attach(s.jobs)
	s.records.Committer, s.metrics = s.jobs, metrics
	if err := s.openIdentities(ctx); err != nil {
		return err
	}
	if err := metrics.Observe(s.snapshot); err != nil {
		return err
	}
	return s.serveHandlers()
}

// openStore opens the store that the configuration names: in the data folder, or in a database.
func (s *Server) openStore(ctx context.Context) error {
	if s.config.Store == "" || s.config.Store == EmbeddedStore {
		db, err := pebblestore.Open(filepath.Join(s.config.DataDir, storeFolder), pebblestore.Options{Logger: s.config.Logger})
		if err != nil {
			return err
		}
		s.store, s.failed = db, db.Failed()
		return nil
	}
	if !strings.HasPrefix(s.config.Store, "postgres://") && !strings.HasPrefix(s.config.Store, "postgresql://") {
		kind, _, _ := strings.Cut(s.config.Store, "://") // what follows may have a password
		return fmt.Errorf("the store %q is neither %q nor the URL of a PostgreSQL database; set --store", kind, EmbeddedStore)
	}
	db, err := pgstore.Open(ctx, s.config.Store, pgstore.Options{Logger: s.config.Logger})
	if err != nil {
		return err
	}
	s.store = db
	return nil
}

// openSecrets finds the key for secrets, or makes one at the first boot.
func (s *Server) openSecrets() error {
	var key *secrets.Key
	var err error
	switch {
	case s.config.SecretsKey != "":
		if key, err = secrets.ParseKey(s.config.SecretsKey); err != nil {
			err = fmt.Errorf("the key for secrets that was given cannot be used: %w", err)
		}
	case s.config.SecretsKeyFile != "":
		key, err = secrets.OpenKeyFile(s.config.SecretsKeyFile, false)
	default:
		key, err = secrets.OpenKeyFile(filepath.Join(s.config.DataDir, "secrets.key"), true)
	}
	s.secrets = secrets.New(s.records, key, time.Now, s.config.Logger)
	return err
}

// watchDisk begins to look at the disk of the embedded store.
func (s *Server) watchDisk() {
	if s.failed == nil || s.config.DiskReserve < 0 {
		return
	}
	s.disk = &diskGuard{
		dir: filepath.Join(s.config.DataDir, storeFolder), reserve: s.config.DiskReserve,
		look: lookAtDisk, pause: s.logs.Pause, logger: s.config.Logger,
	}
	s.disk.check()
}

func (s *Server) serveHandlers() error {
	handlers, err := api.New(api.Config{
		Jobs: s.jobs, Fleet: s.fleet, Logs: s.logs, Secrets: s.secrets, Retention: s.retention, Trail: s.trail,
		Authority: s.authority, Enrolment: s.identity.enrolment, Tokens: s.tokens, Credentials: s.identity.credentials,
		AccessTokens: s.identity.accessTokens, Access: s.identity.access, Provider: s.identity.provider,
		Origins: s.config.CORSOrigins, Version: s.config.Version,
		Limits: s.config.Limits.calls(s.metrics), Logger: s.config.Logger, Meters: s.telemetry.Meters, Tracers: s.telemetry.Tracers,
	})
	if err != nil {
		return err
	}
	s.identity.api = handlers
	s.listener = gate.New(s.listener, s.authority.ServerTLS(s.identity.checkCertificate), s.config.Limits.Connections,
		func(why gate.Reason) { s.metrics.ConnectionRefused(string(why)) }, s.config.Logger)
	s.api = newAPIServer(handlers, &s.config.Limits, s.config.Logger)
	s.ops = newOpsServer(telemetry.OperationsHandler(s.telemetry.Registry, s.ready))
	return nil
}

func (s *Server) listen() error {
	var err error
	if s.listener, err = net.Listen("tcp", s.config.Listen); err != nil {
		return explainListen("the API", s.config.Listen, "--listen", err)
	}
	if s.config.OpsListen == noOperations {
		return nil
	}
	if s.opsListen, err = net.Listen("tcp", s.config.OpsListen); err != nil {
		return explainListen("the operations port", s.config.OpsListen, "--ops-listen", err)
	}
	return nil
}

func explainListen(what, address, flag string, err error) error {
	return fmt.Errorf("cannot listen for %s on %s: %w; another program may have it: stop that, or choose another address with %s",
		what, address, err, flag)
}

// newJobID returns an id of now that is larger than another, also within a millisecond and when the clock was set back.
func newJobID(after job.ID) job.ID {
	now := time.Now()
	if now.UnixMilli() <= after.Time().UnixMilli() {
		return after.Plus(1 + uint64(rand.Uint32())) //nolint:gosec // ids are unique, not secret
	}
	// Half of the range is left for the other ids of this millisecond.
	return job.NewID(now, uint16(rand.Uint32()), rand.Uint64()>>1) //nolint:gosec // as above
}

// URL is where clients reach the API.
func (s *Server) URL() string {
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		return "https://" + s.listener.Addr().String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// OpsURL is where operators find metrics and health; empty when the port is off.
func (s *Server) OpsURL() string {
	if s.opsListen == nil {
		return ""
	}
	return "http://" + s.opsListen.Addr().String()
}

// Credentials are the files with which an administrator's client connects.
type Credentials struct{ CA, Certificate, Key string }

// AdminCredentials returns the files of the administrator that the first boot made.
func (s *Server) AdminCredentials() Credentials {
	return Credentials{
		CA: s.authority.CACertificatePath(), Certificate: s.authority.AdminCertificatePath(), Key: s.authority.AdminKeyPath(),
	}
}

// CreateAgentToken makes a token with which one agent may enrol, and returns its secret and the CA's pin.
func (s *Server) CreateAgentToken(ctx context.Context, ttl time.Duration) (secret, pin string, err error) {
	_, secret, err = s.tokens.Create(ctx, identity.CreateOptions{TTL: ttl})
	return secret, s.authority.Pin(), err
}

// Run serves until the context ends, then lets agents and calls leave, and closes the store. The error says why the server
// could not go on.
func (s *Server) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	// The engine outlives the listeners, so that calls under way can end.
	engine, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	var parts errgroup.Group
	fatal := make(chan error, 6)
	for _, part := range []func(context.Context) error{s.jobs.Run, s.logs.Run, s.expire, s.disk.run, s.identity.credentials.Run, s.trail.Run} {
		parts.Go(func() error {
			err := part(engine)
			if err != nil {
				fatal <- err
			}
			return err
		})
	}
	group.Go(func() error { return serve(func() error { return s.api.Serve(s.listener) }) })
	if s.opsListen != nil {
		group.Go(func() error { return serve(func() error { return s.ops.Serve(s.opsListen) }) })
	}
	group.Go(func() error {
		defer s.shutdown()
		select {
		case <-running.Done():
			return nil
		case err := <-fatal:
			return err
		case <-s.failed:
			return errors.New("the store failed, see the log above; free space or repair the disk, then start the server again")
		}
	})
	s.config.Logger.Info("server ready", "url", s.URL(), "operations", s.OpsURL(), "data", s.config.DataDir, "version", s.config.Version)
	err := group.Wait()
	stopEngine()
	if failed := parts.Wait(); !errors.Is(err, failed) { // else it is why the server stops
		err = errors.Join(err, failed)
	}
	return errors.Join(err, s.Close())
}

func serve(run func() error) error {
	if err := run(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// shutdown tells agents to come back later, lets calls end, and cuts off what is left.
func (s *Server) shutdown() {
	s.stopping.Store(true)
	s.fleet.Drain(reconnectAfter)
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	for _, server := range []*http.Server{s.api, s.ops} {
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // the streams that did not end by themselves
		}
	}
}

// Close releases what New has opened, when Run was not called.
func (s *Server) Close() error {
	var problems []error
	for _, l := range []net.Listener{s.listener, s.opsListen} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			problems = append(problems, err)
		}
	}
	if s.telemetry != nil {
		if err := s.telemetry.Shutdown(context.Background()); err != nil {
			s.config.Logger.Warn("the last telemetry was not sent", "error", err)
		}
	}
	if s.store != nil {
		problems = append(problems, s.store.Close())
		s.store = nil
	}
	return errors.Join(problems...)
}

// ready says why the server cannot take work.
func (s *Server) ready() error {
	if s.stopping.Load() {
		return errors.New("the server is stopping")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := s.jobs.Overview(ctx); err != nil {
		return fmt.Errorf("the reactor does not answer: %w", err)
	}
	return nil
}
