package main

import (
	"github.com/spf13/pflag"

	"github.com/hodei-jobs/hodei/service"
)

// addLimitFlags are for what clients may cost; docs/operations.md explains them.
func addLimitFlags(flags *pflag.FlagSet, l *service.Limits) {
	c := &l.Connections
	flags.IntVar(&c.Connections, "max-connections", 0, "connections to the API in all (default 20000, at most 3/4 of the open files)")
	flags.IntVar(&c.PerAddress, "max-connections-per-address", 0, "connections from one address, or one IPv6 /64 (default 16000)")
	flags.IntVar(&c.Strangers, "max-strangers-per-address", 0, "connections from one address without a client certificate (default 256)")
	flags.IntVar(&c.Waiting, "max-waiting-per-address", 0, "connections from one address that have not made their handshake (default 1000)")
	flags.IntVar(&c.Handshakes, "max-handshakes", 0, "handshakes at the same time, an eighth of them with one address (default 512)")
	flags.DurationVar(&c.HandshakeTime, "handshake-timeout", 0, "time for a handshake (default 5s)")
	flags.IntVar(&l.Streams, "max-streams", 0, "calls at the same time on one connection (default 1000; 100 without a client certificate)")
	flags.IntVar(&l.HeaderBytes, "max-header-bytes", 0, "size of a request's header (default 65536)")
	flags.DurationVar(&l.HeaderTime, "header-timeout", 0, "time for a header, or for the rest of a frame (default 10s)")
	flags.DurationVar(&l.IdleTime, "idle-timeout", 0, "time of a connection without calls (default 2m; 30s without a client certificate)")
	flags.DurationVar(&l.BodyTime, "body-timeout", 0, "time for the body of a call, and a second more for every 16 KiB (default 10s)")
	flags.Int64Var(&l.BodyMemory, "max-body-memory", 0, "bytes for the large bodies of calls that are under way (default 536870912)")
	flags.DurationVar(&l.WriteTime, "write-timeout", 0, "time for a client that takes nothing of an answer (default 30s)")
	flags.Float64Var(&l.Calls, "max-calls", 0, "calls a second of one identity, and twice as many at once (default 10000; -1 for any number)")
	flags.Float64Var(&l.StrangerCalls, "max-stranger-calls", 0, "the same for one address without proven identity (default 200)")
	flags.Float64Var(&l.FailedLogins, "max-failed-logins", 0,
		"attempts to log in that may fail in a minute, of one address or one account (default 10; -1 for any number)")
}
