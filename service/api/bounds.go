package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
)

const (
	// bodyTime is how long the body of a request may take, and a second more for every bodyRate bytes of it.
	bodyTime = 10 * time.Second
	bodyRate = 16 << 10
	// writeTime is how long a peer that speaks HTTP/1 may take for writePiece bytes of an answer; HTTP/2 looks after itself.
	writeTime  = 30 * time.Second
	writePiece = 16 << 10
)

// bounded serves requests whose bodies must come in good time, and whose messages must not claim more than the largest size: Connect
// would read all that they claim, only to throw it away. What clients stream has no end in time.
func bounded(next http.Handler, servers ...*connect.Server) http.Handler {
	streams := make(map[string]bool)
	for _, server := range servers {
		for spec := range server.Specs() {
			streams[spec.Procedure] = spec.StreamType&connect.StreamTypeClient != 0
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ProtoMajor < 2 {
			w = &steadyWriter{w, control}
			defer func() { _ = control.SetWriteDeadline(time.Now().Add(writeTime)) }() // for what net/http has kept
		}
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &boundedBody{ReadCloser: r.Body, prefixed: prefixed(r.Header.Get("Content-Type"))}
		if !streams[r.URL.Path] {
			b.control = control
			b.limit(time.Now())
		}
		r.Body = b // the request is this handler's own: nobody else has it
		next.ServeHTTP(w, r)
	})
}

// prefixed says whether each message in a body of this type has its size before it.
func prefixed(contentType string) bool {
	return strings.HasPrefix(contentType, "application/connect+") || strings.HasPrefix(contentType, "application/grpc")
}

// boundedBody is the body of a request. It is for one goroutine at a time, but for Close.
type boundedBody struct {
	io.ReadCloser
	control  *http.ResponseController // nil: the body has no end in time
	started  time.Time
	deadline time.Time
	read     int
	done     bool

	prefixed bool
	prefix   [5]byte
	have     int    // bytes of prefix
	left     uint32 // bytes of the message behind it
	err      error
}

// limit sets or moves the time until which the body must have come.
func (b *boundedBody) limit(now time.Time) {
	if b.started.IsZero() {
		b.started = now
	}
	by := b.started.Add(bodyTime + time.Duration(b.read/bodyRate)*time.Second)
	if by.Equal(b.deadline) {
		return
	}
	b.deadline = by
	_ = b.control.SetReadDeadline(by) // a server that cannot, in a test, has no limit
}

// Read reads on, until the body has ended, its time is over, or a message claims too much.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if b.prefixed {
		b.look(p[:n])
	}
	if b.control == nil || b.done {
		return n, err
	}
	b.read += n
	switch {
	case err == nil:
		b.limit(b.started)
	case errors.Is(err, io.EOF):
		b.done = true
		_ = b.control.SetReadDeadline(time.Time{}) // the answer may take its time
	}
	return n, err
}

// look follows the sizes of messages. After one that is too large nothing more is read.
func (b *boundedBody) look(p []byte) {
	for len(p) > 0 {
		if skip := min(uint32(len(p)), b.left); skip > 0 {
			b.left -= skip
			p = p[skip:]
			continue
		}
		n := copy(b.prefix[b.have:], p)
		b.have += n
		p = p[n:]
		if b.have < len(b.prefix) {
			return
		}
		b.have, b.left = 0, binary.BigEndian.Uint32(b.prefix[1:])
		if b.left > MaxRequestBytes {
			b.err = fmt.Errorf("a message claims to have %d bytes", b.left)
			return
		}
	}
}

// steadyWriter gives every piece of an answer over HTTP/1 its time: a peer that reads nothing is cut off, a slow one is not.
type steadyWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

// Write writes p piece by piece.
func (s *steadyWriter) Write(p []byte) (written int, err error) {
	for first := true; err == nil && (first || len(p) > 0); first = false {
		piece := p[:min(len(p), writePiece)]
		_ = s.control.SetWriteDeadline(time.Now().Add(writeTime))
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
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime))
	return s.control.Flush()
}

// Unwrap is for http.ResponseController.
func (s *steadyWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
