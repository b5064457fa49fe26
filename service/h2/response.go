package h2

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// answerSize is how much of an answer is kept before it is sent; a shorter one goes out whole, with its length.
const answerSize = 4 << 10

var errReturned = errors.New("h2: the handler has returned")

// response is the http.ResponseWriter of a stream. Like any, it is for one goroutine at a time.
type response struct {
	stream   *stream
	scratch  *scratch // of the worker; nil: the handler has returned
	header   http.Header
	status   int // 0: not yet set
	written  int64
	declared int64 // by the handler; -1: not
	trailers []string
	// What the handler has said about its header, or left to this package.
	ownType, ownDate, encoded, closing bool
}

// Header is the header, and after the body was written the trailers.
func (r *response) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

// WriteHeader sets the status and keeps the header as it is now. One of 1xx is sent at once, and others can follow.
func (r *response) WriteHeader(status int) {
	if r.status != 0 || r.scratch == nil {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("h2: the status %d does not exist", status)) //nolint:forbidigo // as net/http does: it is a mistake in the handler
	}
	r.snapshot()
	if status >= 200 {
		r.status = status
		return
	}
	if status != http.StatusSwitchingProtocols { // which HTTP/2 does not have
		r.sendInformation(status)
	}
}

// snapshot copies the header, because the handler may change it from now on.
func (r *response) snapshot() {
	fields := r.scratch.fields[:0]
	r.declared, r.trailers = -1, nil
	r.ownType, r.ownDate, r.encoded, r.closing = false, false, false, false
	for name, values := range r.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || !r.keeps(name, values) {
			continue
		}
		lower := r.scratch.lower.Of(name)
		if !httpguts.ValidHeaderFieldName(lower) {
			continue
		}
		for _, v := range values {
			if httpguts.ValidHeaderFieldValue(v) {
				fields = append(fields, hpack.HeaderField{Name: lower, Value: v})
			}
		}
	}
	r.scratch.fields = fields
}

// keeps notes what a header means, and says whether it is sent as it is.
func (r *response) keeps(name string, values []string) bool {
	switch name {
	case "Connection":
		r.closing = len(values) > 0 && values[0] == "close"
		return false
	case "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade":
		return false
	case "Content-Length":
		if len(values) == 0 {
			return false
		}
		n, err := strconv.ParseUint(values[0], 10, 63)
		if err == nil {
			r.declared = int64(n)
		}
		return false // it is added again
	case "Content-Type":
		r.ownType = true
	case "Content-Encoding":
		r.encoded = len(values) > 0 && values[0] != ""
	case "Date":
		r.ownDate = true
	case "Trailer":
		for _, v := range values {
			for trailer := range strings.SplitSeq(v, ",") {
				r.declareTrailer(strings.Trim(trailer, " \t"))
			}
		}
	}
	return true
}

// Write sends p, or keeps it until there is enough.
func (r *response) Write(p []byte) (int, error) { return write(r, p) }

// WriteString is Write.
func (r *response) WriteString(s string) (int, error) { return write(r, s) }

func write[T string | []byte](r *response, p T) (int, error) {
	s := r.scratch
	if s == nil {
		return 0, errReturned
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	r.written += int64(len(p))
	if r.declared >= 0 && r.written > r.declared {
		return 0, http.ErrContentLength
	}
	if len(s.body) == 0 && len(p) > answerSize { // keeping a part of it gains nothing
		return r.wrote(len(p), r.send([]byte(p), false))
	}
	if s.body == nil {
		s.body = make([]byte, 0, answerSize)
	}
	room := min(len(p), answerSize-len(s.body))
	s.body = append(s.body, p[:room]...)
	if room == len(p) {
		return len(p), nil
	}
	return r.wrote(len(p), r.send([]byte(p[room:]), false))
}

func (r *response) wrote(n int, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Flush sends what is there.
func (r *response) Flush() { _ = r.FlushError() }

// FlushError sends what is there, and says why it could not.
func (r *response) FlushError() error {
	if r.scratch == nil {
		return errReturned
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.send(nil, false)
}

// complete sends what is left when the handler has returned.
func (r *response) complete() {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	for name, values := range r.header {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			r.declareTrailer(trailer)
			r.header[http.CanonicalHeaderKey(trailer)] = values
		}
	}
	_ = r.send(nil, true) // the peer is gone, or it was told
}

func (r *response) declareTrailer(name string) {
	name = http.CanonicalHeaderKey(name)
	if !httpguts.ValidTrailerHeader(name) {
		return
	}
	for _, known := range r.trailers {
		if known == name {
			return
		}
	}
	r.trailers = append(r.trailers, name)
}

// SetReadDeadline limits the time for reading the body; zero: no limit.
func (r *response) SetReadDeadline(deadline time.Time) error {
	c := r.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !deadline.IsZero() && !deadline.After(time.Now()) {
		r.stream.body.end(errDeadline)
		return nil
	}
	if r.stream.body.err == nil { // else nobody waits for it
		r.stream.setTimer(&r.stream.readTimer, deadline, r.stream.readTimeout)
	}
	return nil
}

// SetWriteDeadline limits the time for writing; zero: no limit. When it is over, the stream is reset.
func (r *response) SetWriteDeadline(deadline time.Time) error {
	if !deadline.IsZero() && !deadline.After(time.Now()) {
		r.stream.writeTimeout()
		return nil
	}
	c := r.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	r.stream.setTimer(&r.stream.writeTimer, deadline, r.stream.writeTimeout)
	return nil
}

// EnableFullDuplex has nothing to do: reading and writing at the same time is always possible.
func (r *response) EnableFullDuplex() error { return nil }

// bodyAllowed says whether an answer of this status has a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
