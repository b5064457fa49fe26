package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// agentGCPercent is how far an agent's heap may grow, in percent of what is in use, before it is collected: it is small and
// makes much garbage when jobs are short.
const agentGCPercent = 400

// What a server's heap may grow by before it is collected: the more the less is in use, for collecting costs as much as is in
// use, and what matters for the machine is how large it becomes.
const (
	serverHeapGrowth = 96 << 20
	mostGCPercent    = 400
	leastGCPercent   = 50
	heapInterval     = time.Second
)

// tuneMemory sets how far the heap may grow, unless GOGC says otherwise.
func tuneMemory(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// tuneServerMemory sets how far the heap may grow by what is in use, again and again until the context ends, unless GOGC
// says otherwise.
func tuneServerMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(heapInterval)
	defer ticker.Stop()
	for set := 0; ; {
		metrics.Read(live)
		percent := min(max(int(100*serverHeapGrowth/max(live[0].Value.Uint64(), 1)), leastGCPercent), mostGCPercent)
		if percent != set {
			debug.SetGCPercent(percent)
			set = percent
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
