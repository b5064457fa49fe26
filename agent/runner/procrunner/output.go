//go:build linux

package procrunner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// pipeDelay is how long output is awaited from a pipe or a terminal that something outside of the step holds open.
const pipeDelay = 2 * time.Second

// output carries what the step writes to its writers.
type output struct {
	streams []*stream
	step    [3]uintptr    // the step's standard input, output and error
	opened  []int         // those of them that were opened for this step
	ended   chan struct{} // closed when the step has ended; nil: it has no terminal
	copies  sync.WaitGroup
}

func openPipes(null int, stdout, stderr io.Writer) (*output, error) {
	o := &output{step: [3]uintptr{uintptr(null)}}
	for i, to := range []io.Writer{stdout, stderr} {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			o.abandon()
			return nil, failed("making pipes for the output", err)
		}
		o.streams = append(o.streams, &stream{from: pollable(ends[0], "pipe"), to: to})
		o.opened = append(o.opened, ends[1])
		o.step[1+i] = uintptr(ends[1])
	}
	return o, nil
}

// giveTo makes the step's ends the user's, so that they can be opened again by their names, as /dev/stdout or /dev/pts/1.
func (o *output) giveTo(u *runner.User) error {
	for _, fd := range o.opened {
		if err := errors.Join(unix.Fchown(fd, int(u.UID), int(u.GID)), unix.Fchmod(fd, 0o600)); err != nil {
			o.abandon()
			return failed(fmt.Sprintf("giving the step's output to the user %d", u.UID), err)
		}
	}
	return nil
}

func (o *output) abandon() {
	for _, s := range o.streams {
		_ = s.from.Close()
	}
	o.closeOpened()
}

func (o *output) closeOpened() {
	for _, fd := range o.opened {
		_ = unix.Close(fd)
	}
}

// begin starts copying; the step has its descriptors.
func (o *output) begin() {
	for _, s := range o.streams {
		o.copies.Go(s.pump)
	}
	if o.ended == nil {
		o.closeOpened()
	} else {
		o.copies.Go(o.endInput)
	}
}

// finish waits until all output was written. The step's processes are gone, so the streams end by themselves, unless
// something that escaped holds them open.
func (o *output) finish() {
	if o.ended != nil {
		close(o.ended)
	}
	for _, s := range o.streams {
		s.end(pipeDelay)
	}
	o.copies.Wait()
}

// stream is output on its way to one writer.
type stream struct {
	from *os.File
	to   io.Writer

	mu   sync.Mutex
	last time.Time // reading waits until then at most; zero: the step runs
}

// end lets reading wait for no longer than d from now.
func (s *stream) end(d time.Duration) {
	s.mu.Lock()
	s.last = time.Now().Add(d)
	s.mu.Unlock()
	s.await(time.Time{})
}

// await lets reading wait until t, or, if that is zero, for as long as the stream may be open.
func (s *stream) await(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.IsZero() {
		t = s.last
	}
	_ = s.from.SetReadDeadline(t) // fails when it is closed already
}

// pumpBytes is how much is written at once, and pumpBuffers where it gathers: for short steps making them would cost more than
// using them.
const pumpBytes = 32 << 10

var pumpBuffers sync.Pool

// pumpPause is the least time between two writes, unless there is enough for a whole one: a program may write every byte by itself.
const pumpPause = 2 * time.Millisecond

// pump copies until the stream ends. After end it goes on for as long as there is something to read. A writer that fails
// does not hold up the process: its output is read and dropped.
func (s *stream) pump() {
	defer s.from.Close() //nolint:errcheck // it was read to its end
	memory, ok := pumpBuffers.Get().(*[pumpBytes]byte)
	if !ok {
		memory = new([pumpBytes]byte)
	}
	defer pumpBuffers.Put(memory)
	buffer := memory[:]
	var wrote time.Time
	var late bool
	for {
		n, err := s.gather(buffer, wrote.Add(pumpPause))
		if n > 0 {
			late = false
			if _, werr := s.to.Write(buffer[:n]); werr != nil {
				s.to = io.Discard
			}
			wrote = time.Now() // after a slow writer more has come, and goes in one
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !late:
			// The writer may have held us up past the deadline while data waited: look once more.
			late = true
			s.end(pipeDelay / 20)
		default:
			return
		}
	}
}

// gather waits for output and reads it, and what follows it before the time is there, until the buffer is full. What comes after
// that time, as the first line of an idle stream does, it returns at once.
func (s *stream) gather(buffer []byte, until time.Time) (int, error) {
	n, err := s.from.Read(buffer)
	if err != nil || n == len(buffer) || !time.Now().Before(until) {
		return n, err
	}
	s.await(until)
	defer s.await(time.Time{})
	for err == nil && n < len(buffer) {
		var more int
		more, err = s.from.Read(buffer[n:])
		n += more
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}
