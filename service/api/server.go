package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"buf.build/go/protovalidate"
	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect/v2"
	"connectrpc.com/otelconnect"
	"connectrpc.com/validate"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
	"github.com/hodei-jobs/hodei/proto/codec"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/retention"
	"github.com/hodei-jobs/hodei/service/secrets"
)

// MaxRequestBytes is the largest message that a client may send.
const MaxRequestBytes = 4 << 20

// Config is what the handlers serve. All fields but Provider, Limits, Origins and Version are required.
type Config struct {
	Jobs      *orchestrator.Orchestrator
	Fleet     *fleet.Fleet
	Logs      *logs.Service
	Secrets   *secrets.Secrets
	Retention *retention.Keeper
	Trail     *audit.Keeper

	Authority    *identity.Authority
	Enrolment    *identity.Enrolment
	Tokens       *identity.Tokens
	Credentials  *identity.Credentials
	AccessTokens *identity.AccessTokens
	Access       *access.Access
	Provider     Provider // OIDC; nil: none

	Limits Limits

	Origins []string // of pages in browsers that may call; see CheckOrigin
	Version string   // of the server

	Logger  *slog.Logger
	Meters  metric.MeterProvider
	Tracers trace.TracerProvider
}

// API serves everything that is on the API's port.
type API struct {
	http.Handler
	gate *gate
}

// Recheck cuts the streams whose callers may go on no more. It is to be called when something was revoked or taken away.
func (a *API) Recheck() { a.gate.live.recheck() }

// New serves the public API, the operators' API, the worker protocol, reflection, health and the keys of access tokens on one port.
func New(config Config) (*API, error) {
	g := &gate{
		access: config.Access, credentials: config.Credentials, accessTokens: config.AccessTokens, jobs: config.Jobs, logger: config.Logger,
		now: time.Now, limits: config.Limits,
	}
	public, err := publicServer(config, g)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	// Strings of these may not be UTF-8: the domain checks those of specs, and the conversions those of agents.
	quick := codec.New(&hodeiv1.SubmitJobRequest{}, &hodeiv1.SubmitJobResponse{}, &hodeiv1.SubmitJobsRequest{}, &hodeiv1.SubmitJobsResponse{},
		&hodeiv1.TailLogsResponse{}, &hwpv1.ConnectRequest{}, &hwpv1.ConnectResponse{})
	codecs := connecthttp.WithCodecs(quick, connectproto.NewJSONCodec())
	limit := connecthttp.WithConditionalOptions(func(spec connect.Spec) []connecthttp.Option {
		return []connecthttp.Option{connecthttp.WithReadMaxBytes(largest(spec))}
	})
	connecthttp.Mount(mux, public, codecs, limit, connecthttp.WithCompressMinBytes(1024))
	workers := workerServer(config, g)
	connecthttp.Mount(mux, workers, codecs, limit, connecthttp.WithCompressors())
	// Anybody may ask for health, and what asks is small.
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(serviceNames()...),
		connectv1.WithReadMaxBytes(4<<10), connectv1.WithCompression("gzip", nil, nil)))
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(config.AccessTokens.KeySet()) // whoever asks may have left
	})
	return &API{crossOrigin(config.Origins, config.Limits.bounded(mux, public, workers)), g}, nil
}

// serviceNames are the services that reflection and health tell about.
func serviceNames() []string {
	return []string{
		hodeiv1connect.JobServiceName, hodeiv1connect.LogServiceName, hodeiv1connect.WorkerServiceName, hodeiv1connect.SecretServiceName,
		hodeiv1connect.QueueServiceName, hodeiv1connect.AuthServiceName, adminv1connect.TokenServiceName, adminv1connect.RetentionServiceName,
		adminv1connect.AccessServiceName, adminv1connect.LoginServiceName, adminv1connect.AuthorityServiceName, adminv1connect.AuditServiceName,
		hwpv1connect.WorkerServiceName,
	}
}

func publicServer(config Config, g *gate) (*connect.Server, error) {
	telemetry, err := otelconnect.NewServerInterceptor(
		otelconnect.WithMeterProvider(config.Meters), otelconnect.WithTracerProvider(config.Tracers))
	if err != nil {
		return nil, fmt.Errorf("making the interceptor for telemetry: %w", err)
	}
	// The rules of the messages that carry most of the load are compiled now, so that the first caller need not wait.
	validator, err := protovalidate.New(protovalidate.WithMessages(&hodeiv1.SubmitJobRequest{}, &hodeiv1.SubmitJobsRequest{},
		&hodeiv1.TailLogsRequest{}, &hodeiv1.GetJobRequest{}, &hodeiv1.WatchJobsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("compiling the rules of the messages: %w", err)
	}
	server := connect.NewServer(telemetry, translateErrors(config.Logger), recoverPanics, logCalls(config.Logger),
		sameMajor(config.Version), g.interceptor, validate.NewServerInterceptor(validate.WithValidator(validator)))
	hodeiv1connect.RegisterJobServiceHandler(server, &jobService{jobs: config.Jobs})
	hodeiv1connect.RegisterLogServiceHandler(server, &logService{jobs: config.Jobs, logs: config.Logs})
	hodeiv1connect.RegisterWorkerServiceHandler(server, &workerService{jobs: config.Jobs})
	hodeiv1connect.RegisterSecretServiceHandler(server, &secretService{secrets: config.Secrets})
	hodeiv1connect.RegisterQueueServiceHandler(server, &queueService{jobs: config.Jobs})
	adminv1connect.RegisterTokenServiceHandler(server, &tokenService{gate: g, tokens: config.Tokens, pin: config.Authority.Pin})
	hodeiv1connect.RegisterAuthServiceHandler(server, &authService{gate: g, provider: config.Provider})
	adminv1connect.RegisterAccessServiceHandler(server, &accessService{gate: g})
	adminv1connect.RegisterLoginServiceHandler(server, &loginService{gate: g, tokens: config.Tokens})
	adminv1connect.RegisterAuthorityServiceHandler(server, &authorityService{
		gate: g, authority: config.Authority, enrolment: config.Enrolment, fleet: config.Fleet,
	})
	adminv1connect.RegisterAuditServiceHandler(server, &auditService{trail: config.Trail})
	adminv1connect.RegisterRetentionServiceHandler(server, &retentionService{keeper: config.Retention})
	grpcreflect.Register(server, grpcreflect.WithNamer(grpcreflect.NamerFunc(serviceNames)))
	return server, nil
}

// workerServer serves the worker protocol: without telemetry and rules for every frame, whose cost would be paid for each
// of many small messages.
func workerServer(config Config, g *gate) *connect.Server {
	server := connect.NewServer(translateErrors(config.Logger), recoverPanics, logCalls(config.Logger), g.interceptor)
	hwpv1connect.RegisterWorkerServiceHandler(server, &hwpService{gate: g, fleet: config.Fleet, enrolment: config.Enrolment, logger: config.Logger})
	return server
}

// logCalls writes one line for each call that failed, and for each call when debugging.
func logCalls(logger *slog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			start := time.Now()
			err := next(ctx, spec, stream)
			level := slog.LevelDebug
			if err != nil && ctx.Err() == nil {
				level = slog.LevelInfo
			}
			if logger.Enabled(ctx, level) {
				peer := ""
				if info, ok := connect.CallInfoForServerContext(ctx); ok {
					peer = info.PeerAddr
				}
				logger.Log(ctx, level, "call", "procedure", spec.Procedure, "peer", peer, "seconds", time.Since(start).Seconds(), "error", err)
			}
			return err
		}
	}
}
