//go:build linux

// Package procrunner runs steps as processes of the machine.
//
// Each step is a session of its own. All its processes are found again, those that left the session included: by a control
// group where the agent may make one, and else because the agent adopts their orphans. When the first process ends, whatever
// is left of the step is killed, so the end of a step means that nothing of it runs.
package procrunner

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// pipeDelay is how long output is awaited from a pipe that something outside of the step holds open.
const pipeDelay = 2 * time.Second

// Options tune a Runner. The zero value is good.
type Options struct {
	Logger    *slog.Logger
	Instance  string // tells agents on one machine apart; letters and digits
	NoCgroups bool   // find processes by adoption even where control groups could be made
}

// Runner is a runner.Runner.
type Runner struct {
	logger  *slog.Logger
	cgroups *cgroups // nil: none
	mark    string   // a variable that every process has where there are no control groups; empty: none
	orphans *orphans
	adopts  bool // orphans of steps become children of the agent
}

// New looks once at what the machine allows.
func New(options Options) *Runner {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{logger: options.Logger, orphans: newOrphans(), adopts: os.Getpid() == 1}
	if !options.NoCgroups {
		groups, err := openCgroups(options.Instance)
		if err == nil {
			r.cgroups = groups
			return r
		}
		r.logger.Info("steps run without control groups", "reason", err)
	}
	if options.Instance != "" {
		r.mark = "HODEI_RUNNER=" + options.Instance
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		r.logger.Warn("orphans of steps cannot be adopted, so some may survive", "error", err)
		return r
	}
	r.adopts = true
	return r
}

// Mode says how processes are found: "cgroup2", "cgroup1" or "subreaper".
func (r *Runner) Mode() string {
	if r.cgroups == nil {
		return "subreaper"
	}
	return r.cgroups.mode()
}

// Recover implements runner.Runner. Without control groups it finds what has kept its environment.
func (r *Runner) Recover() error {
	if r.cgroups != nil {
		return r.cgroups.recover()
	}
	if r.mark != "" {
		killMarked(r.mark)
	}
	return nil
}

// Close removes what is kept for further steps. No step may be running.
func (r *Runner) Close() error {
	if r.cgroups == nil {
		return nil
	}
	return r.cgroups.removeFree()
}

// scope finds the processes of one step.
type scope interface {
	pids() []int
	// kill ends all processes, those that are born meanwhile included, and returns when none is left.
	kill()
	oomKilled() bool
	close()
}

// Start implements runner.Runner.
func (r *Runner) Start(c runner.Command) (runner.Process, error) {
	if c.Prepare != nil {
		if err := c.Prepare(&c); err != nil {
			return nil, failed("preparing the step", err)
		}
	}
	path, err := resolve(c)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: path, Args: c.Argv, Env: c.Env, Dir: c.Dir,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if r.mark != "" {
		cmd.Env = append(slices.Clip(cmd.Env), r.mark)
	}
	output, err := connect(cmd, c.Stdout, c.Stderr)
	if err != nil {
		return nil, failed("making pipes for the output", err)
	}
	p := &process{grace: c.Grace, cmd: cmd, output: output, orphans: r.orphans, adopts: r.adopts, done: make(chan struct{})}
	if p.scope, err = r.launch(cmd, c); err != nil {
		output.abandon()
		return nil, explainStart(c, err)
	}
	var own syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) == nil {
		p.agentRSS = own.Maxrss
	}
	output.begin()
	return p, nil
}

// launch starts the process inside a scope.
func (r *Runner) launch(cmd *exec.Cmd, c runner.Command) (scope, error) {
	if r.cgroups == nil {
		return r.orphans.start(cmd)
	}
	group, err := r.cgroups.create(c.ID, c.MemoryLimitBytes)
	if err != nil {
		return nil, err
	}
	if err := r.orphans.track(func() (int, error) { return group.start(cmd) }); err != nil {
		group.close()
		return nil, err
	}
	return group, nil
}

// process is a running step.
type process struct {
	grace   time.Duration
	cmd     *exec.Cmd
	scope   scope
	output  *output
	orphans *orphans
	adopts  bool
	done    chan struct{} // closed when nothing of the step runs
	// agentRSS is the largest memory that the agent itself has had, in KiB, when the step was started.
	agentRSS int64

	mu      sync.Mutex
	stopped bool
	forced  bool
}

// Stop implements runner.Process.
func (p *process) Stop(force bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case force && !p.forced:
		p.forced = true
		go p.terminate()
	case !force && !p.stopped && !p.forced:
		for _, pid := range p.scope.pids() {
			_ = unix.Kill(pid, unix.SIGTERM) // it may have ended meanwhile
		}
		go p.escalate()
	}
	p.stopped = true
}

func (p *process) escalate() {
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		p.terminate()
	case <-p.done:
	}
}

func (p *process) terminate() {
	select {
	case <-p.done:
	default:
		p.scope.kill()
	}
}

// Wait implements runner.Process.
func (p *process) Wait() runner.Result {
	state, err := p.cmd.Process.Wait()
	p.orphans.forget(p.cmd.Process.Pid)
	p.scope.kill()
	close(p.done)
	p.output.finish()
	result := runner.Result{ExitCode: runner.ExitFailure, OOMKilled: p.scope.oomKilled()}
	p.scope.close()
	if p.adopts {
		p.orphans.reapSoon()
	}
	if err != nil {
		return result // the process was taken from under us; nothing is known of its end
	}
	result.ExitCode = state.ExitCode()
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.Signal = unix.SignalName(status.Signal())
		result.ExitCode = 128 + int(status.Signal())
	}
	// Until it executes its program a child counts the agent's memory as its own, so a smaller peak than that says nothing.
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok && usage.Maxrss > p.agentRSS {
		result.Usage.MaxRSSKiB = usage.Maxrss
	}
	result.Usage.UserCPU, result.Usage.SystemCPU = state.UserTime(), state.SystemTime()
	return result
}

// output carries what the step writes to its writers.
type output struct {
	reads  []*os.File
	writes []*os.File
	to     []io.Writer
	copies sync.WaitGroup
}

func connect(cmd *exec.Cmd, stdout, stderr io.Writer) (*output, error) {
	o := &output{to: []io.Writer{stdout, stderr}}
	for range o.to {
		r, w, err := os.Pipe()
		if err != nil {
			o.abandon()
			return nil, err
		}
		o.reads, o.writes = append(o.reads, r), append(o.writes, w)
	}
	cmd.Stdout, cmd.Stderr = o.writes[0], o.writes[1]
	return o, nil
}

func (o *output) abandon() {
	for _, f := range append(o.reads, o.writes...) {
		_ = f.Close()
	}
}

// begin starts copying; the step has its ends of the pipes.
func (o *output) begin() {
	for _, w := range o.writes {
		_ = w.Close()
	}
	for i, r := range o.reads {
		o.copies.Go(func() { pump(o.to[i], r) })
	}
}

// pumpBytes is how much is read at once, and pumpBuffers where to: for short steps making them would cost more than using them.
const pumpBytes = 32 << 10

var pumpBuffers sync.Pool

// pump copies until the pipe ends. After finish it goes on for as long as there is something to read. A writer that fails
// does not hold up the process: its output is read and dropped.
func pump(w io.Writer, r *os.File) {
	defer r.Close() //nolint:errcheck // a pipe that was read to its end
	memory, ok := pumpBuffers.Get().(*[pumpBytes]byte)
	if !ok {
		memory = new([pumpBytes]byte)
	}
	defer pumpBuffers.Put(memory)
	buffer := memory[:]
	var late bool
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			late = false
			if _, werr := w.Write(buffer[:n]); werr != nil {
				w = io.Discard
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !late:
			// The writer may have held us up past the deadline while data waited: look once more.
			late = true
			_ = r.SetReadDeadline(time.Now().Add(pipeDelay / 20))
		default:
			return
		}
	}
}

// finish waits until all output was written. The step's processes are gone, so the pipes end by themselves, unless
// something that escaped holds them open.
func (o *output) finish() {
	for _, r := range o.reads {
		_ = r.SetReadDeadline(time.Now().Add(pipeDelay)) // fails when it is closed already
	}
	o.copies.Wait()
}
