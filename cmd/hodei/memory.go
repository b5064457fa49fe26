package main

import (
	"os"
	"runtime/debug"
)

// How far the heap may grow, in percent of what is in use, before it is collected. An agent's is small and makes much
// garbage when jobs are short; a server's may hold a long queue.
const (
	agentGCPercent  = 400
	serverGCPercent = 200
)

// tuneMemory sets how far the heap may grow, unless GOGC says otherwise.
func tuneMemory(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
