package service

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/service/api"
	"github.com/hodei-jobs/hodei/service/gate"
	"github.com/hodei-jobs/hodei/service/h2"
	"github.com/hodei-jobs/hodei/service/ratelimit"
	"github.com/hodei-jobs/hodei/service/telemetry"
)

const (
	// callers is how many are remembered in each table of rates.
	callers = 100_000
	// burstSeconds is how many seconds of calls may come at once.
	burstSeconds = 2
)

// Limits bound what the clients of the API may cost. Every zero field has the default that is named beside it.
type Limits struct {
	// Connections are for the connections as such, their handshakes included.
	Connections gate.Limits
	Streams     int           // calls at the same time on one connection; 1,000, and 100 at most without a client certificate
	HeaderBytes int           // of a request; 64 KiB
	HeaderTime  time.Duration // for the header of a request, and for the rest of what has begun to come; 10 s
	IdleTime    time.Duration // without calls; 2 min, and 30 s at most without a client certificate
	BodyTime    time.Duration // for the body of a call that is no stream of an agent, and a second more for every 16 KiB; 10 s
	BodyMemory  int64         // bytes for large bodies of calls that are taken in at the same time; 512 MiB
	WriteTime   time.Duration // for a peer that takes nothing of an answer; 30 s
	// Calls is how many calls an identity may make in a second on average, and twice as many at once; 10,000. Negative: any number.
	Calls float64
	// StrangerCalls is the same for all calls from one address that prove no identity; 200.
	StrangerCalls float64
	// FailedLogins is how many attempts to log in may fail in a minute from one address, or for one account, and at once; 10.
	FailedLogins float64
}

func (l Limits) withDefaults(logger *slog.Logger) Limits {
	wanted := l.Connections.Connections
	l.Connections = l.Connections.WithDefaults()
	// The store needs files of its own: a server that has none left for them would have to stop.
	if files := openFiles(); files > 0 && l.Connections.Connections > files/4*3 {
		l.Connections.Connections = max(files/4*3, 1)
		if wanted > l.Connections.Connections {
			logger.Warn("fewer connections are taken than wanted, because the process may not have more files open; raise that limit (ulimit -n)",
				"wanted", wanted, "connections", l.Connections.Connections, "open_files", files)
		}
	}
	l.BodyTime = or(l.BodyTime, 10*time.Second)
	l.Streams = or(l.Streams, 1000)
	l.HeaderBytes = or(l.HeaderBytes, 64<<10)
	l.HeaderTime = or(l.HeaderTime, 10*time.Second)
	l.IdleTime = or(l.IdleTime, 2*time.Minute)
	l.BodyMemory = or(l.BodyMemory, 512<<20)
	l.WriteTime = or(l.WriteTime, 30*time.Second)
	l.Calls = or(l.Calls, 10_000)
	l.StrangerCalls = or(l.StrangerCalls, 200)
	l.FailedLogins = or(l.FailedLogins, 10)
	return l
}

// or is the value if it is set, else the usual one.
func or[T int | int64 | float64 | time.Duration](value, usual T) T {
	if value != 0 {
		return value
	}
	return usual
}

// openFiles is how many files the process may have open; 0: nobody knows.
func openFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 1<<30 {
		return 0
	}
	return int(limit.Cur)
}

// strangers are the limits of connections without a client certificate, of which anybody can have many.
func (l *Limits) strangers() h2.Strangers {
	return h2.Strangers{Streams: 100, Window: 256 << 10, Idle: 30 * time.Second}
}

// calls are the limits of calls; refusals are counted.
func (l *Limits) calls(metrics *telemetry.Metrics) api.Limits {
	table := func(perSecond float64) *ratelimit.Rates {
		return ratelimit.New(perSecond, int(burstSeconds*perSecond), callers)
	}
	return api.Limits{
		Identity: table(l.Calls), Address: table(l.StrangerCalls), Refused: metrics.CallRefused,
		BodyTime: l.BodyTime, BodyMemory: l.BodyMemory, WriteTime: l.WriteTime,
		Logins: ratelimit.New(l.FailedLogins/60, int(l.FailedLogins), callers),
	}
}
