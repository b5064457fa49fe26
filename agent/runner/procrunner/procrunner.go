//go:build linux

// Package procrunner runs steps as processes of the machine.
//
// Each step is a session or a process group of its own, without a terminal unless it asks for one. All its processes are found again, those that
// left it included: by a control group where the agent may make one, and else because the agent adopts their orphans. When the
// first process ends, whatever is left of the step is killed, so the end of a step means that nothing of it runs.
package procrunner

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// Options tune a Runner. The zero value is good.
type Options struct {
	Logger    *slog.Logger
	Instance  string // tells agents on one machine apart; letters and digits
	NoCgroups bool   // find processes by adoption even where control groups could be made
	// Owns tells the UIDs that nobody but steps ever has, and no two steps at once. A step that runs as one of them is found by that
	// where there are no control groups, and Recover ends whatever runs as any of them. Nil: there are none.
	Owns func(uid uint32) bool
}

// Runner is a runner.Runner.
type Runner struct {
	logger  *slog.Logger
	null    int      // the descriptor of /dev/null, which steps read
	cgroups *cgroups // nil: none
	mark    string   // a variable that every process has where there are no control groups; empty: none
	orphans *orphans
	threads *threads // start the steps of other users
	owns    func(uid uint32) bool
	adopts  bool // orphans of steps become children of the agent
	session bool // steps are sessions of their own
}

// New looks once at what the machine allows.
func New(options Options) *Runner {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{
		logger: options.Logger, orphans: newOrphans(), threads: newThreads(), owns: options.Owns, adopts: os.Getpid() == 1, session: true,
	}
	var err error
	if r.null, err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		r.logger.Warn("steps have no standard input", "error", err)
	}
	if !options.NoCgroups {
		groups, err := openCgroups(options.Instance)
		if err == nil {
			r.cgroups = groups
			r.session = !groups.version2 || hasTerminal()
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

// hasTerminal reports whether steps would have the agent's terminal if they were no sessions of their own. Without one a
// process group does as well, where the step's processes are not found by their session: some kernels make a group for the
// scheduler with each session, which costs a tenth of all that it costs to run a short program.
func hasTerminal() bool {
	terminal, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err == nil {
		_ = unix.Close(terminal)
	}
	return !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENOENT)
}

// Mode says how processes are found: "cgroup2", "cgroup1" or "subreaper".
func (r *Runner) Mode() string {
	if r.cgroups == nil {
		return "subreaper"
	}
	return r.cgroups.mode()
}

// Capabilities are what a job may require: "terminal", and "memory-limit" where the kernel holds a step to its memory.
func (r *Runner) Capabilities() []string {
	if r.cgroups == nil {
		return []string{"terminal"}
	}
	return []string{"memory-limit", "terminal"}
}

// Recover implements runner.Runner. Without control groups it finds what has kept its environment.
func (r *Runner) Recover() error {
	if r.owns != nil {
		(&tree{orphans: r.orphans, owns: r.owns}).kill()
	}
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
	_ = unix.Close(r.null)
	r.threads.close()
	if r.cgroups == nil {
		return nil
	}
	return r.cgroups.pool.clear()
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
func (r *Runner) Start(c *runner.Command) (runner.Process, error) {
	if c.Prepare != nil {
		if err := c.Prepare(c); err != nil {
			return nil, failed("preparing the step", err)
		}
	}
	if c.User == nil {
		return r.start(c)
	}
	var p runner.Process
	var err error
	if problem := r.threads.do(r.strays(c), func() {
		// The keys of the agent's session, and what other steps put there, are none of this one's.
		_, _, _ = unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
		p, err = r.start(c)
	}); problem != nil {
		return nil, failed("starting the step", problem)
	}
	return p, err
}

// start starts a complete command. When that has a user it must be called on one of the threads for that.
func (r *Runner) start(c *runner.Command) (_ runner.Process, err error) {
	var path string
	lookAs(c.User, func() { path, err = resolve(c) })
	if err != nil {
		return nil, err
	}
	output, err := r.connect(c)
	if err != nil {
		return nil, err
	}
	terminal := c.Terminal != nil
	session := r.session || terminal
	first := &program{path: path, argv: c.Argv, attr: syscall.ProcAttr{
		Dir: c.Dir, Env: r.environment(c.Env), Files: output.step[:],
		Sys: &syscall.SysProcAttr{Setsid: session, Setpgid: !session, Setctty: terminal, Credential: credential(c.User)},
	}}
	p := &process{grace: c.Grace, output: output, orphans: r.orphans, adopts: r.adopts, done: make(chan struct{})}
	if p.scope, p.first, err = r.launch(first, c); err != nil {
		output.abandon()
		lookAs(c.User, func() { err = explainStart(c, path, err) })
		return nil, err
	}
	output.begin()
	return p, nil
}

func (r *Runner) connect(c *runner.Command) (o *output, err error) {
	if c.Terminal != nil {
		o, err = openTerminal(multiplexer, *c.Terminal, c.Stdout)
	} else {
		o, err = openPipes(r.null, c.Stdout, c.Stderr)
	}
	if err == nil && c.User != nil {
		err = o.giveTo(c.User)
	}
	return o, err
}

func (r *Runner) environment(env []string) []string {
	env = lastOfEach(env)
	if r.mark != "" {
		env = append(env, r.mark)
	}
	return env
}

// launch starts a program inside a scope.
func (r *Runner) launch(p *program, c *runner.Command) (scope, *child, error) {
	if r.cgroups == nil {
		t := &tree{orphans: r.orphans}
		if c.User != nil && r.owns != nil && r.owns(c.User.UID) {
			own := c.User.UID
			t.owns = func(uid uint32) bool { return uid == own }
		}
		return r.orphans.start(p, t)
	}
	group, err := r.cgroups.create(c.ID, c.MemoryLimitBytes)
	if err != nil {
		return nil, nil, err
	}
	first, err := r.orphans.track(func() (*child, error) { return group.start(p) })
	if err != nil {
		group.close()
		return nil, nil, err
	}
	return group, first, nil
}

// process is a running step.
type process struct {
	grace   time.Duration
	first   *child
	scope   scope
	output  *output
	orphans *orphans
	adopts  bool
	done    chan struct{} // closed when nothing of the step runs
	ending  sync.RWMutex  // held for reading while the step's processes are looked for and signalled, and to close done

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
		p.whileItRuns(func() {
			for _, pid := range p.scope.pids() {
				_ = unix.Kill(pid, unix.SIGTERM) // it may have ended meanwhile
			}
		})
		go p.escalate()
	}
	p.stopped = true
}

// Has implements runner.Process.
func (p *process) Has(pid int) (has bool) {
	p.whileItRuns(func() { has = slices.Contains(p.scope.pids(), pid) })
	return has
}

// whileItRuns calls f unless the step has ended, and Wait does not return before f has: by then what was the step's, its control group or
// the number of a process, can be the next step's.
func (p *process) whileItRuns(f func()) {
	p.ending.RLock()
	defer p.ending.RUnlock()
	select {
	case <-p.done:
	default:
		f()
	}
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

func (p *process) terminate() { p.whileItRuns(p.scope.kill) }

// Wait implements runner.Process.
func (p *process) Wait() runner.Result {
	status, usage, err := p.first.wait()
	p.orphans.forget(p.first.pid)
	p.scope.kill()
	p.ending.Lock()
	close(p.done)
	p.ending.Unlock()
	p.output.finish()
	result := runner.Result{ExitCode: runner.ExitFailure, OOMKilled: p.scope.oomKilled()}
	p.scope.close()
	if p.adopts {
		p.orphans.reapSoon()
	}
	if err != nil {
		return result // the process was taken from under us; nothing is known of its end
	}
	result.ExitCode = status.ExitStatus()
	if status.Signaled() {
		result.Signal = unix.SignalName(status.Signal())
		result.ExitCode = 128 + int(status.Signal())
	}
	// Until it executes its program a child counts the agent's memory as its own, so a smaller peak than that says nothing.
	if exceedsAgent(usage.Maxrss) {
		result.Usage.MaxRSSKiB = usage.Maxrss
	}
	result.Usage.UserCPU, result.Usage.SystemCPU = time.Duration(usage.Utime.Nano()), time.Duration(usage.Stime.Nano())
	return result
}

// agentPeak is the largest memory that the agent itself is known to have had, in KiB. It never gets smaller, so it is looked at
// only when more is seen.
var agentPeak atomic.Int64

func exceedsAgent(rss int64) bool {
	var own syscall.Rusage
	if rss > agentPeak.Load() && syscall.Getrusage(syscall.RUSAGE_SELF, &own) == nil {
		agentPeak.Store(own.Maxrss)
	}
	return rss > agentPeak.Load()
}
