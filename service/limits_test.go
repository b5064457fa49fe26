package service

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/gate"
)

// The defaults are good, what was set stays, and there are never so many connections that the store has no files.
func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	l := Limits{}.withDefaults(logger)
	if l.Streams <= 0 || l.HeaderBytes <= 0 || l.HeaderTime <= 0 || l.IdleTime <= 0 || l.BodyTime <= 0 || l.BodyMemory <= 0 || l.WriteTime <= 0 ||
		l.Calls <= 0 || l.StrangerCalls <= 0 || l.FailedLogins <= 0 || l.Connections != l.Connections.WithDefaults() {
		t.Errorf("a limit has no default: %+v", l)
	}
	if log.Len() > 0 {
		t.Errorf("the defaults are complained about: %s", &log)
	}
	if files := openFiles(); files > 0 {
		l = Limits{Connections: gate.Limits{Connections: files}}.withDefaults(logger)
		if l.Connections.Connections != files/4*3 || !strings.Contains(log.String(), "ulimit") {
			t.Errorf("%d connections are taken with %d files; the log is %s", l.Connections.Connections, files, &log)
		}
	}
	set := Limits{Streams: 1, HeaderBytes: 2, HeaderTime: 3, IdleTime: 4, BodyTime: 5, BodyMemory: 6, WriteTime: 7, Calls: -1, StrangerCalls: 8, FailedLogins: 9}
	set.Connections = gate.Limits{Connections: 1, PerAddress: 2, Strangers: 3, Waiting: 4, Handshakes: 5, HandshakeTime: time.Second}
	if got := set.withDefaults(logger); got != set {
		t.Errorf("what was set has become %+v", got)
	}
}
