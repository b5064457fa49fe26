package api

import (
	"net/http"
	"time"
)

const (
	defaultWriteTime = 30 * time.Second
	// writePiece is what a peer that speaks HTTP/1 must take in one time for writing.
	writePiece = 16 << 10
)

// steadyWriter gives every piece of an answer over HTTP/1 its time: a peer that reads nothing is cut off, a slow one is not.
type steadyWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	time    time.Duration
}

// Write writes p piece by piece.
func (s *steadyWriter) Write(p []byte) (written int, err error) {
	for first := true; err == nil && (first || len(p) > 0); first = false {
		piece := p[:min(len(p), writePiece)]
		_ = s.control.SetWriteDeadline(time.Now().Add(s.time))
		var n int
		n, err = s.ResponseWriter.Write(piece)
		written += n
		p = p[len(piece):]
	}
	return written, err
}

// Flush sends what was kept.
func (s *steadyWriter) Flush() { _ = s.FlushError() }

// FlushError is Flush, and says why it could not.
func (s *steadyWriter) FlushError() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.time))
	return s.control.Flush()
}

// Unwrap is for http.ResponseController.
func (s *steadyWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
