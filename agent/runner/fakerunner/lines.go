package fakerunner

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// Lines is a runner.Runner whose steps write lines at a pace, and start no process. A step's arguments are the time between two lines,
// as time.ParseDuration reads it, and how many lines there are. Its lines are those of WriteLines.
type Lines struct{}

// Start implements runner.Runner.
func (Lines) Start(c *runner.Command) (runner.Process, error) {
	if c.Prepare != nil {
		if err := c.Prepare(c); err != nil {
			return nil, &runner.StartError{ExitCode: runner.ExitFailure, Message: err.Error()}
		}
	}
	if len(c.Argv) != 2 {
		return nil, runner.Invalid(runner.ExitNotFound, "a step needs the time between two lines and their number, not %q", c.Argv)
	}
	pause, err := time.ParseDuration(c.Argv[0])
	if err != nil {
		return nil, runner.Invalid(runner.ExitNotFound, "%q is not the time between two lines", c.Argv[0])
	}
	n, err := strconv.Atoi(c.Argv[1])
	if err != nil {
		return nil, runner.Invalid(runner.ExitNotFound, "%q is not a number of lines", c.Argv[1])
	}
	p := &writing{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = WriteLines(c.Stdout, n, pause, p.stop) // the writer fails when nobody wants the output
	}()
	return p, nil
}

// Recover implements runner.Runner: nothing is ever left behind.
func (Lines) Recover() error { return nil }

// writing is a step that writes.
type writing struct {
	stop, done chan struct{}
	once       sync.Once
}

// Wait implements runner.Process.
func (p *writing) Wait() runner.Result {
	<-p.done
	return runner.Result{}
}

// Stop implements runner.Process.
func (p *writing) Stop(bool) { p.once.Do(func() { close(p.stop) }) }

// Has implements runner.Process: there are no processes.
func (*writing) Has(int) bool { return false }

// WriteLines writes n lines like those of a build, with a pause after each, until stop is closed. Each begins with the nanoseconds
// since 1970 at which it was written and its number; the last one is "sha256" and the hash of all before. Without a pause they are
// written as fast as they are taken.
func WriteLines(w io.Writer, n int, pause time.Duration, stop <-chan struct{}) error {
	l := lineWriter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	var ticks <-chan time.Time
	if pause > 0 {
		l.w = bufio.NewWriterSize(w, 256) // which is written out after each line
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for i := range n {
		if err := l.write(i, pause > 0); err != nil {
			return err
		}
		if ticks == nil {
			continue
		}
		select {
		case <-ticks:
		case <-stop:
			return nil
		}
	}
	fmt.Fprintf(l.w, "sha256 %x\n", l.sum.Sum(nil))
	return l.w.Flush()
}

type lineWriter struct {
	w    *bufio.Writer
	sum  hash.Hash
	line []byte
}

func (l *lineWriter) write(i int, flush bool) error {
	line := strconv.AppendInt(l.line[:0], time.Now().UnixNano(), 10)
	line = append(line, ' ')
	line = strconv.AppendInt(line, int64(i), 10)
	line = append(line, " [build] compiling src/module"...)
	line = strconv.AppendInt(line, int64(i%77), 10)
	line = append(line, "/file_"...)
	line = strconv.AppendUint(line, uint64(i)*2654435761%1_000_003, 36)
	line = append(line, ".cc: warning: unused variable\n"...)
	l.line = line
	_, _ = l.sum.Write(line) // never fails
	if _, err := l.w.Write(line); err != nil || !flush {
		return err
	}
	return l.w.Flush()
}
