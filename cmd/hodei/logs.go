package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// interruptible ends with the first Ctrl-C or SIGTERM.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// logFlags are what `hodei logs` is asked for.
type logFlags struct {
	options              hodei.LogOptions
	stream, since, until string
	grep                 string
	timestamps, raw      bool
}

func newLogs(g *global) *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a job wrote, from the first byte on",
		Long: `Logs prints a job's stdout to stdout and its stderr to stderr. With -f it stays until the job has ended; Ctrl-C leaves the
job alone. Whatever happens to the connection or the server meanwhile, each byte is printed once.

On a terminal, control sequences other than those for colours and the movement of the cursor are left out, because output could use them
to do things to the terminal; --raw prints everything as it is, and both streams to stdout in the order in which they were written.

With --grep only lines that match are printed; without any the exit code is 1. If bytes are missing, the last line on stderr says which
and why.`,
		Example: `hodei logs job_01...
hodei logs -f --tail 20 --timestamps job_01...
hodei logs --since 10m --stream stderr job_01...
hodei logs --grep 'error|warning' job_01...`,
		Args: exactly(1, "the id of a job"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			if err := f.resolve(time.Now()); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			err := f.print(ctx, c, args[0])
			if ctx.Err() != nil {
				return &exitError{exitInterrupted, fmt.Sprintf("left; the job goes on. Come back with: hodei logs -f %s", args[0])}
			}
			return err
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.options.Follow, "follow", "f", false, "stay until the job has ended")
	flags.Int32Var(&f.options.Tail, "tail", 0, "begin with so many lines before the present end")
	flags.StringVar(&f.since, "since", "", "begin with what was written at this time (2026-01-31T12:00:00Z) or so long ago (10m)")
	flags.StringVar(&f.until, "until", "", "end with what was written at this time or so long ago")
	flags.BoolVarP(&f.timestamps, "timestamps", "t", false, "begin each line with the time at which it was written")
	flags.Int32Var(&f.options.Attempt, "attempt", 0, "begin with this attempt (default: the last one)")
	flags.StringVar(&f.options.Step, "step", "", "only this step")
	flags.StringVar(&f.stream, "stream", "", "only stdout or stderr")
	flags.StringVar(&f.grep, "grep", "", "only lines that match this regular expression")
	flags.BoolVar(&f.raw, "raw", false, "both streams to stdout, as they are")
	return cmd
}

// resolve turns texts into options.
func (f *logFlags) resolve(now time.Time) error {
	var err error
	if f.options.Since, err = moment("--since", f.since, now); err != nil {
		return err
	}
	if f.options.Until, err = moment("--until", f.until, now); err != nil {
		return err
	}
	if f.options.Tail != 0 && f.since != "" {
		return usageError{errors.New("--tail and --since both say where to begin; keep one")}
	}
	if f.options.Tail < 0 {
		return usageError{fmt.Errorf("--tail %d is not a number of lines", f.options.Tail)}
	}
	switch f.stream {
	case "":
	case "stdout":
		f.options.Stream = hodeiv1.LogStream_LOG_STREAM_STDOUT
	case "stderr":
		f.options.Stream = hodeiv1.LogStream_LOG_STREAM_STDERR
	default:
		return usageError{fmt.Errorf("--stream %q is not stdout or stderr", f.stream)}
	}
	return nil
}

// moment reads a time, or how long ago it was.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usageError{fmt.Errorf("%s %q is neither a time like 2026-01-31T12:00:00Z nor so long ago like 10m", flag, text)}
	}
	return t, nil
}

func (f *logFlags) print(ctx context.Context, c *hodei.Client, id string) error {
	p := &logPrinter{stdout: terminalSafe(os.Stdout), stderr: terminalSafe(os.Stderr), timestamps: f.timestamps}
	if f.raw {
		p.stdout, p.stderr = os.Stdout, os.Stdout
	}
	if f.grep != "" {
		pattern, err := regexp.Compile(f.grep)
		if err != nil {
			return usageError{fmt.Errorf("--grep: %w", err)}
		}
		p.grep = pattern
		if !f.options.Follow && f.options.Tail == 0 && f.since == "" && f.until == "" {
			return f.search(ctx, c, id, p)
		}
	}
	completeness, err := c.ReadLogs(ctx, id, f.options, p.take)
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return err
	}
	return p.close(completeness)
}

// maxMatches is what the server finds at once.
const maxMatches = 10_000

// search lets the server look for the lines.
func (f *logFlags) search(ctx context.Context, c *hodei.Client, id string, p *logPrinter) error {
	found, err := c.SearchLogs(ctx, &hodeiv1.SearchLogsRequest{
		JobId: id, Attempt: f.options.Attempt, Step: f.options.Step, Stream: f.options.Stream, MaxMatches: maxMatches,
		Query: &hodeiv1.SearchLogsRequest_Pattern{Pattern: f.grep},
	})
	if err != nil {
		return err
	}
	for _, m := range found.GetMatches() {
		if err := p.line(m.GetStream(), m.GetLine().GetTime().AsTime(), append(m.GetLine().GetText(), '\n')); err != nil {
			return err
		}
	}
	if n := len(found.GetMatches()); found.GetCount() != strconv.Itoa(n) {
		fmt.Fprintf(os.Stderr, "hodei: these are the first %d of %s lines that match; see all with: hodei logs %s | grep -E '...'\n",
			n, found.GetCount(), id)
	}
	return p.close(found.GetCompleteness())
}

// logPrinter writes output as it comes, or line by line where lines matter.
type logPrinter struct {
	stdout, stderr io.Writer
	timestamps     bool
	grep           *regexp.Regexp // nil: all lines
	matched        bool
	partial        map[lineSource]*partialLine
}

// lineSource is where lines come from; those of different ones do not mix.
type lineSource struct {
	attempt int32
	step    string
	stream  hodeiv1.LogStream
}

type partialLine struct {
	time time.Time // of its first byte
	text []byte
}

// maxPartial bounds a line that is kept until it ends; what is longer is printed in parts.
const maxPartial = 1 << 20

func (p *logPrinter) take(chunk *hodeiv1.LogChunk) error {
	if p.grep == nil && !p.timestamps {
		_, err := p.writer(chunk.GetStream()).Write(chunk.GetData())
		return err
	}
	if p.partial == nil {
		p.partial = make(map[lineSource]*partialLine)
	}
	source := lineSource{chunk.GetAttempt(), chunk.GetStep(), chunk.GetStream()}
	partial := p.partial[source]
	if partial == nil {
		partial = new(partialLine)
		p.partial[source] = partial
	}
	for _, b := range chunk.GetData() {
		if len(partial.text) == 0 {
			partial.time = chunk.GetTime().AsTime()
		}
		partial.text = append(partial.text, b)
		if b != '\n' && len(partial.text) < maxPartial {
			continue
		}
		if err := p.line(source.stream, partial.time, partial.text); err != nil {
			return err
		}
		partial.text = partial.text[:0]
	}
	return nil
}

// end prints the lines that have no end.
func (p *logPrinter) end() error {
	for source, partial := range p.partial {
		if len(partial.text) == 0 {
			continue
		}
		if err := p.line(source.stream, partial.time, partial.text); err != nil {
			return err
		}
	}
	return nil
}

func (p *logPrinter) line(stream hodeiv1.LogStream, at time.Time, text []byte) error {
	if p.grep != nil && !p.grep.Match(trimLineEnd(text)) {
		return nil
	}
	p.matched = true
	w := p.writer(stream)
	if p.timestamps {
		if _, err := io.WriteString(w, at.UTC().Format("2006-01-02T15:04:05.000000Z")+" "); err != nil {
			return err
		}
	}
	_, err := w.Write(text)
	return err
}

func (p *logPrinter) writer(stream hodeiv1.LogStream) io.Writer {
	if stream == hodeiv1.LogStream_LOG_STREAM_STDERR {
		return p.stderr
	}
	return p.stdout
}

// close says what is missing, and fails when nothing matched.
func (p *logPrinter) close(completeness *hodeiv1.LogCompleteness) error {
	if completeness.GetState() == hodeiv1.LogState_LOG_STATE_GAP {
		fmt.Fprintln(os.Stderr, "hodei: output is missing:", completeness.GetMessage())
	}
	if p.grep != nil && !p.matched {
		return &exitError{exitFailure, ""}
	}
	return nil
}

func trimLineEnd(text []byte) []byte {
	for n := len(text); n > 0 && (text[n-1] == '\n' || text[n-1] == '\r'); n-- {
		text = text[:n-1]
	}
	return text
}

// exactly checks the number of arguments and says what is missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("expected %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}
