package api

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/semaphore"

	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
	"github.com/hodei-jobs/hodei/service/job"
)

const (
	defaultBodyTime, defaultBodyMemory = 10 * time.Second, 512 << 20
	// bodyRate is how many bytes of a body earn it a second more.
	bodyRate = 16 << 10
	// smallBody is what a call may send without asking whether there is memory for it.
	smallBody = 64 << 10
	// growth is how much more memory a message takes while it is put together.
	growth = 2
)

// bounds are for the bodies of requests.
type bounds struct {
	time   time.Duration
	room   int64
	memory *semaphore.Weighted // of room
	calls  map[string]connect.Spec
}

// bounded serves requests whose bodies must come in good time, of which so many large ones are taken in at once, and whose
// messages must not claim more than the largest size: Connect would read all that they claim, only to throw it away. What agents
// stream has no end in time.
func (l *Limits) bounded(next http.Handler, servers ...*connect.Server) http.Handler {
	b := &bounds{
		time: cmp.Or(l.BodyTime, defaultBodyTime), room: cmp.Or(l.BodyMemory, defaultBodyMemory), calls: make(map[string]connect.Spec),
	}
	b.memory = semaphore.NewWeighted(b.room)
	for _, server := range servers {
		for spec := range server.Specs() {
			b.calls[spec.Procedure] = spec
		}
	}
	writeTime := cmp.Or(l.WriteTime, defaultWriteTime)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ProtoMajor < 2 {
			w = &steadyWriter{w, control, writeTime}
			defer func() { _ = control.SetWriteDeadline(time.Now().Add(writeTime)) }() // for what net/http has kept
		}
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		body := b.body(r, control)
		defer body.giveBack()
		r = r.WithContext(r.Context()) // a copy: net/http looks at the body of its own to see whether the connection can go on
		r.Body = body
		next.ServeHTTP(w, r)
	})
}

// body puts bounds to the body of a request.
func (b *bounds) body(r *http.Request, control *http.ResponseController) *boundedBody {
	spec := b.calls[r.URL.Path]
	body := &boundedBody{
		ReadCloser: r.Body, bounds: b, request: r, largest: uint32(largest(spec)), prefixed: prefixed(r.Header.Get("Content-Type")),
		counted: spec.StreamType == connect.StreamTypeUnary,
	}
	if spec.StreamType&connect.StreamTypeClient == 0 {
		body.control = control
		body.started = time.Now()
		body.limit()
	}
	return body
}

// largest is how large a message of a call may be, in bytes. What opens a stream is kept for as long as the stream lives, and who has
// proven nothing yet has little to say.
func largest(spec connect.Spec) int {
	if spec.StreamType == connect.StreamTypeServer || spec.Procedure == hwpv1connect.WorkerServiceEnrollProcedure {
		return smallBody
	}
	return MaxRequestBytes
}

// prefixed says whether each message in a body of this type has its size before it.
func prefixed(contentType string) bool {
	return strings.HasPrefix(contentType, "application/connect+") || strings.HasPrefix(contentType, "application/grpc")
}

// compressed says whether messages may become larger than they look.
func compressed(header http.Header) bool {
	for _, name := range [...]string{"Content-Encoding", "Grpc-Encoding", "Connect-Content-Encoding"} {
		if v := header.Get(name); v != "" && v != connect.CompressionNameIdentity {
			return true
		}
	}
	return false
}

// boundedBody is the body of a request. It is for one goroutine at a time, but for Close.
type boundedBody struct {
	io.ReadCloser
	*bounds
	request  *http.Request            // as net/http has it
	control  *http.ResponseController // nil: the body has no end in time
	counted  bool                     // its memory
	held     int64                    // of memory
	started  time.Time
	deadline time.Time
	read     int64
	done     bool

	prefixed bool
	largest  uint32
	prefix   [5]byte
	have     int    // bytes of prefix
	left     uint32 // bytes of the message behind it
	err      error
}

// limit sets or moves the time until which the body must have come.
func (b *boundedBody) limit() {
	by := b.started.Add(b.time + time.Duration(b.read/bodyRate)*time.Second)
	if !by.Equal(b.deadline) {
		b.deadline = by
		_ = b.control.SetReadDeadline(by) // a server that cannot, in a test, has no limit
	}
}

// Read reads on, until the body has ended, its time is over, there is no memory for it, or a message claims too much.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.prefixed {
		b.look(p[:n])
	}
	if b.counted && b.held == 0 && n > 0 && b.err == nil {
		b.err = b.hold()
	}
	if b.control == nil || b.done {
		return n, err
	}
	switch {
	case err == nil:
		b.limit()
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
		if b.left > b.largest {
			b.err = fmt.Errorf("a message claims to have %d bytes", b.left)
			return
		}
	}
}

// hold takes memory for a body that is large, may become so, or does not say what it will be. It does not wait for some: bodies that
// wait fill the window of their connection, and those that have memory would wait for what comes behind.
func (b *boundedBody) hold() error {
	size := int64(MaxRequestBytes)
	switch declared := b.request.ContentLength; {
	case compressed(b.request.Header):
	case b.prefixed && b.left > smallBody:
		size = int64(b.left)
	case b.read <= smallBody && declared <= smallBody:
		return nil
	case declared > 0:
		size = min(size, declared)
	}
	need := min(growth*size, b.room)
	if !b.memory.TryAcquire(need) {
		refusal := job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
			"the server takes in as many large calls as it has memory for; try again, with less in each call")
		refusal.RetryAfter = time.Second
		return fromDomain(refusal)
	}
	b.held = need
	return nil
}

// giveBack is called when the request was served.
func (b *boundedBody) giveBack() {
	if b.held > 0 {
		b.memory.Release(b.held)
	}
}
