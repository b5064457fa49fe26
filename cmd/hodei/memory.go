package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// agentGCPercent is how far an agent's heap may grow, in percent of what is in use, before it is collected: it is small and
// makes much garbage when jobs are short.
const agentGCPercent = 400

// tuneMemory sets how far the heap may grow, unless GOGC says otherwise.
func tuneMemory(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// A server's heap may grow by about serverHeapGrowth before it is collected, whatever is in use: what matters for the machine
// is how large it becomes. The bounds keep a small heap from growing many times over, and a large one from being collected
// all the time.
const (
	serverHeapGrowth = 40 << 20
	mostGCPercent    = 400
	leastGCPercent   = 40
)

// tuneServerMemory sets, after each collection, how far the heap may grow until the next, unless GOGC says otherwise.
func tuneServerMemory() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := int(100 * serverHeapGrowth / max(live[0].Value.Uint64(), 1))
	debug.SetGCPercent(min(max(percent, leastGCPercent), mostGCPercent))
	runtime.AddCleanup(new([16]byte), func(struct{}) { tuneServerMemory() }, struct{}{}) // runs when the next collection has
}
