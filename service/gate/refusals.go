package gate

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Reason is why a connection was refused. It is the value of a label of a metric.
type Reason string

// The reasons.
const (
	TooMany          Reason = "connections" // there are as many as the server takes
	TooManyOfAddress Reason = "address"     // the same for an address
	TooManyWaiting   Reason = "waiting"     // too many of an address wait for their handshake
	TooManyStrangers Reason = "strangers"   // too many of an address are open without a client certificate
	HandshakeLate    Reason = "handshake_timeout"
	HandshakeFailed  Reason = "handshake_failed"

	none    Reason = ""
	closing Reason = "closing" // the server has closed it by itself
)

// logEvery is how often the log says that connections were refused.
const logEvery = 10 * time.Second

// refusals counts who was refused and says so now and then.
type refusals struct {
	count  func(Reason)
	logger *slog.Logger

	mu     sync.Mutex
	logged time.Time
	silent int // since then
}

func (r *refusals) add(reason Reason, origin netip.Prefix) {
	if reason == closing {
		return
	}
	if r.count != nil {
		r.count(reason)
	}
	if reason == HandshakeFailed {
		return // ports are scanned all the time
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent++
	if now := time.Now(); now.Sub(r.logged) >= logEvery {
		r.logger.Warn("connections were refused; the metric hodei_connections_refused_total says how many and why",
			"since_last_said", r.silent, "last_reason", string(reason), "last_address", origin.String())
		r.logged, r.silent = now, 0
	}
}
