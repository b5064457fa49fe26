package framing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// recorder is a connection that keeps what is written to it, and when.
type recorder struct {
	net.Conn // none: the rest is not used

	mu        sync.Mutex
	gate      chan struct{} // each write waits for it; nil: none does
	err       error         // of every write
	writes    [][]byte
	deadlines []time.Time // as they were set
	rest      []byte      // of writes, not yet looked at as frames
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, bytes.Clone(p))
	r.rest = append(r.rest, p...)
	return len(p), nil
}

func (r *recorder) SetWriteDeadline(at time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadlines = append(r.deadlines, at)
	return nil
}

// hold makes writes wait until let or open.
func (r *recorder) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = make(chan struct{})
}

// let has one write go through that waits.
func (r *recorder) let() { r.gate <- struct{}{} }

// open lets all writes go through from now on.
func (r *recorder) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		close(r.gate)
		r.gate = nil
	}
}

// sizes are how many bytes each write had since it was asked last.
func (r *recorder) sizes() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n []int
	for _, p := range r.writes {
		n = append(n, len(p))
	}
	r.writes = nil
	return n
}

// set are the deadlines that were set since it was asked last, as times from now.
func (r *recorder) set() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var left []time.Duration
	for _, at := range r.deadlines {
		left = append(left, time.Until(at))
	}
	r.deadlines = nil
	return left
}

// frame is one that was written.
type frame struct {
	http2.FrameHeader

	data []byte // of a DATA frame
}

// frames are what was written since it was asked last.
func (r *recorder) frames() ([]frame, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []frame
	in := bytes.NewReader(r.rest)
	for framer := http2.NewFramer(nil, in); ; {
		r.rest = r.rest[len(r.rest)-in.Len():]
		f, err := framer.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // of the last, the rest is still to be written
			return all, nil
		}
		if err != nil {
			return all, err
		}
		read := frame{FrameHeader: f.Header()}
		if f, ok := f.(*http2.DataFrame); ok {
			read.data = bytes.Clone(f.Data())
		}
		all = append(all, read)
	}
}

// way is a way out to a recorder.
type way struct {
	Out
	t      *testing.T
	mu     sync.Mutex
	conn   recorder
	aside  func(send func()) // how Out gets another goroutine
	asides int               // how often it did
	broken []error
}

func newWay(t *testing.T, limit time.Duration) *way {
	w := &way{t: t, aside: func(send func()) { go send() }}
	w.start(&w.conn, limit)
	return w
}

// start makes it a way out to another connection.
func (w *way) start(connection net.Conn, limit time.Duration) {
	w.Init(connection, &w.mu, limit, func(send func()) {
		w.asides++
		w.aside(send)
	}, func(err error) {
		if w.mu.TryLock() {
			w.t.Error("the lock is not held when writing has failed")
			w.mu.Unlock()
		}
		w.broken = append(w.broken, err)
	})
}

// locked does something with the lock held.
func (w *way) locked(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// put puts a frame of n bytes of data, beyond all windows, and writes it if nobody is writing.
func (w *way) put(id uint32, n int) {
	w.locked(func() {
		w.PutFrame(http2.FrameData, 0, id, pattern(0, n))
		w.Flush()
	})
}

// said is what was written since it was asked last, a frame in words each, after nothing happens any more.
func (w *way) said() []string {
	w.t.Helper()
	synctest.Wait()
	frames, err := w.conn.frames()
	if err != nil {
		w.t.Fatal(err)
	}
	var said []string
	for _, f := range frames {
		text := fmt.Sprintf("%s %d %d", f.Type, f.StreamID, f.Length)
		if f.Type == http2.FrameData && f.Flags.Has(http2.FlagDataEndStream) {
			text += " end"
		}
		said = append(said, text)
	}
	return said
}

// expect ends the test if something else was written since it was asked last.
func (w *way) expect(want ...string) {
	w.t.Helper()
	if got := w.said(); !slices.Equal(got, want) {
		w.t.Fatalf("written was\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// must ends the test if the values differ.
func must[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// done says whether something has ended, after nothing happens any more.
func done[T any](c <-chan T) bool {
	synctest.Wait()
	return len(c) > 0
}

// bubble runs a test with a clock of its own. That it returns says that no goroutine is left.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// sender is a stream that sends.
type sender struct {
	way    *way
	id     uint32
	window Outflow
	wake   sync.Cond // of its own window
	err    error     // why it has ended
	// What was asked of it: how often it was told of small windows, and what it waited for.
	trickles, forTurn, forOwn int
	endsByTrickle             error
}

func (w *way) sender(id uint32, window Outflow) *sender {
	s := &sender{way: w, id: id, window: window}
	s.wake.L = &w.mu
	return s
}

func (s *sender) Ended() error { return s.err }

func (s *sender) WaitForWindow(turn *sync.Cond) {
	if turn != nil {
		s.forTurn++
		turn.Wait()
		return
	}
	s.forOwn++
	s.wake.Wait()
}

func (s *sender) Trickle() {
	s.trickles++
	if s.endsByTrickle != nil {
		s.err = s.endsByTrickle
	}
}

// send sends n bytes as those do who use Out, on a goroutine of its own.
func (s *sender) send(n int, end bool) <-chan error {
	ended := make(chan error, 1)
	go s.way.locked(func() {
		err := s.way.PutData(s, s.id, &s.window, pattern(0, n), end)
		s.way.Flush()
		ended <- err
	})
	return ended
}

// grow changes the stream's own window.
func (s *sender) grow(n int64) {
	s.way.locked(func() {
		s.window.Add(n)
		s.wake.Broadcast()
	})
}

// end ends the stream, as the peer or a timer may do.
func (s *sender) end(err error) {
	s.way.locked(func() {
		s.err = err
		s.wake.Broadcast()
		s.way.Wake()
	})
}
