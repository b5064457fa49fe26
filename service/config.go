package service

import (
	"log/slog"
	"time"
)

// Config says where a server keeps its data and where it listens. The zero value of every field but DataDir is good.
type Config struct {
	// DataDir holds everything: the store, and the certificates in its folder "tls". It is made when it is not there.
	DataDir string
	// Store is where jobs and logs are kept: "pebble", in the data folder, or the URL of a PostgreSQL database. Default pebble.
	Store string
	// Listen is the address of the API, "host:port"; port 0 takes any free one. Default 127.0.0.1:7443.
	Listen string
	// OpsListen is the address of the operations port, which asks nobody who they are. Default 127.0.0.1:7444; "-" for none.
	OpsListen string
	// Hosts are further names and addresses under which clients reach the server; its certificate names them.
	Hosts []string
	// CORSOrigins are the origins of pages in browsers that may call the API with a token, for example https://jobs.example.com. Default: none.
	CORSOrigins []string
	// Lease is how long a worker may be silent before its jobs count as lost. Default 15 s.
	Lease time.Duration
	// KeepEnded is how long a job is kept after it has ended, with its log. Default 30 days.
	KeepEnded time.Duration
	// Reservations is how many jobs that find no room are promised a start; others must not delay it. Default 1, at most 32.
	Reservations int
	// SampleAbove is with how many workers a good one is enough for a job, and need not be the best. Default 4,096.
	SampleAbove int
	// MaxUnfinishedJobs bounds the queue; beyond it submits are refused. Default 1,000,000.
	MaxUnfinishedJobs int
	// DiskReserve is how many bytes the disk of the embedded store keeps free: below it, new jobs are refused and output waits
	// with the agents. Default 256 MiB, or a tenth of a disk that is smaller than ten times that; negative: none.
	DiskReserve int64
	// AgentCertificateLife is how long agents' certificates live; agents renew them after two thirds of it, and an agent that was off
	// for the rest must enrol again. Default 24 hours; 5 seconds or more.
	AgentCertificateLife time.Duration
	// SecretsKey encrypts secrets in the store: 32 bytes in base64 or hexadecimal. Default: the key in SecretsKeyFile.
	SecretsKey string
	// SecretsKeyFile holds that key. Default: the file secrets.key in DataDir, which the first boot makes.
	SecretsKeyFile string
	// OIDC is the provider with which people log in. Default: none.
	OIDC OIDC
	// AuditCheckpoints is the file to which the signed checkpoints of the audit trail are appended; best on another machine's disk. Default:
	// audit/checkpoints.jsonl in DataDir.
	AuditCheckpoints string
	// KeepAudit is how long records of the audit trail are kept. Default 0: for ever.
	KeepAudit time.Duration
	// Limits bound what the clients of the API may cost.
	Limits Limits
	// Version is shown in logs and telemetry. Clients of another major version are refused.
	Version string
	// Logger takes the server's log. Default: none.
	Logger *slog.Logger
}

// Default addresses.
const (
	DefaultListen    = "127.0.0.1:7443"
	DefaultOpsListen = "127.0.0.1:7444"
)

// EmbeddedStore as Store keeps everything in the data folder.
const EmbeddedStore = "pebble"

const defaultKeepEnded = 30 * 24 * time.Hour

// noOperations as OpsListen switches the operations port off.
const noOperations = "-"

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.OpsListen == "" {
		c.OpsListen = DefaultOpsListen
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.withDefaults(c.Logger)
	if c.KeepEnded == 0 {
		c.KeepEnded = defaultKeepEnded
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return c
}
