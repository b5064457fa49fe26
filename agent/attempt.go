package agent

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hodei-jobs/hodei/agent/mask"
	"github.com/hodei-jobs/hodei/agent/runner"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// attempt is one run of a job's steps.
type attempt struct {
	agent  *agent
	ref    *hwpv1.AttemptRef
	assign *hwpv1.Assign
	begun  time.Time
	ended  chan struct{} // closed when nothing of it runs any more

	stopped  chan struct{}           // closed when it has a verdict; nil: nobody waits for that
	account  *account                // who it runs as; nil: the agent's own user
	number   uint64                  // in the order in which attempts were taken
	endAcked atomic.Bool             // the server has its last report
	logAcked atomic.Bool             // the server has the end of its log
	endSent  atomic.Pointer[shipper] // of the session in which the end of its log was sent
	hasNews  bool                    // it is in the outbox's line; guarded by the outbox
	unknown  bool                    // the server does not know it; guarded by the outbox

	masks mask.Set // the secrets that are replaced in everything that leaves the agent
	// How many of them came while the attempt ran, and their bytes.
	added, addedBytes atomic.Int64

	mu       sync.Mutex
	spool    *spool // made with the first byte of output
	dropped  bool   // nobody wants its output
	process  runner.Process
	writers  [2]*streamWriter // of the step that runs
	step     int              // the index of the step that runs
	verdict  *hwpv1.Outcome   // why the attempt is being stopped
	stepStop *hwpv1.Outcome   // why the step is being stopped
	force    bool
	work     *workDir             // the folder in which steps start; made for the first that wants it
	steps    []*hwpv1.StepReport  // of the steps that were started; replaced, never changed
	final    *hwpv1.AttemptReport // the last report
	progress *hwpv1.Progress      // nil: the job has said nothing; replaced, never changed
	told     time.Time            // when the server was last told of progress, or will be
}

func newAttempt(a *agent, assign *hwpv1.Assign, now time.Time) *attempt {
	return &attempt{agent: a, ref: assign.GetAttempt(), assign: assign, begun: now, step: -1, ended: make(chan struct{})}
}

// over reports whether nothing of the attempt runs any more.
func (t *attempt) over() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// run runs the steps one after the other and reports what becomes of them.
func (t *attempt) run() {
	if limit := time.Duration(t.assign.GetTimeout()); limit > 0 && limit <= exactLimit {
		timer := time.AfterFunc(limit, func() { t.timeUp(limit) })
		defer timer.Stop()
	}
	t.maskSecrets()
	t.finish(t.runSteps())
	t.cleanUp()
	close(t.ended)
	t.agent.outbox.add(t)
	t.agent.slots.over()
}

// cleanUp removes what the attempt had on the machine. While its user could still come to some of that, no other attempt is given the
// user.
func (t *attempt) cleanUp() {
	err := t.removeSecrets()
	if t.work != nil {
		err = errors.Join(err, t.agent.workDirs.give(t.work))
	}
	if err != nil {
		t.agent.config.Logger.Error("what a job had cannot be removed; a UID of its own is not used again before the agent starts anew",
			"job", t.ref.GetJobId(), "error", err)
		return
	}
	t.agent.config.users.give(t.account)
}

// exactLimit is the longest limit on an attempt's time that has a timer of its own; longer ones are swept.
const exactLimit = 2 * time.Minute

func (t *attempt) timeUp(limit time.Duration) {
	t.stop(false, hwpv1.OutcomeKind_OUTCOME_KIND_TIMEOUT, fmt.Sprintf("the job's time limit of %v was reached", limit))
}

// finish makes the last report.
func (t *attempt) finish(outcome *hwpv1.Outcome, decisive int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var end int64
	if n := len(t.steps); n > 0 {
		end = t.steps[n-1].GetEndTime()
	}
	if end == 0 { // no step was started, or the last one was not seen to end
		end = time.Now().UnixNano()
	}
	t.final = &hwpv1.AttemptReport{
		Attempt: t.ref, Steps: t.steps, EndTime: end, Outcome: outcome, Step: int32(decisive), Silent: t.spool == nil,
		Masked: t.masks.Counts(), Progress: t.progress,
	}
	if t.spool != nil {
		t.final.LogBytes = t.spool.written()
		t.spool.close("")
	} else {
		t.logAcked.Store(true) // there is no log to be acknowledged
	}
}

// report returns how the attempt stands.
func (t *attempt) report() *hwpv1.AttemptReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.final != nil {
		return t.final
	}
	// What is in the slice never changes; it is replaced.
	return &hwpv1.AttemptReport{Attempt: t.ref, Steps: slices.Clone(t.steps), Progress: t.progress}
}

// spoolConfig says where the attempt's output goes, and who is told about it.
func (t *attempt) spoolConfig() spoolConfig {
	slots := t.agent.slots
	return spoolConfig{
		dir: filepath.Join(t.dir(), "output"), limit: t.agent.config.SpoolLimitBytes, flying: &slots.flying,
		ready: func() {
			slots.ready.add(t)
			t.agent.signal()
		},
	}
}

// openOutput returns the spool for the attempt's output.
func (t *attempt) openOutput() *spool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spool == nil {
		t.spool = newSpool(t.spoolConfig())
		if t.dropped {
			t.spool.drop()
		}
	}
	return t.spool
}

// restoreOutput takes over the output of a former life of the agent. end is the report of the attempt's end, nil when it had none.
func (t *attempt) restoreOutput(end *hwpv1.AttemptReport) error {
	out, err := openSpool(t.spoolConfig())
	if err != nil {
		return err
	}
	t.spool = out
	switch {
	case end == nil:
		out.close("the agent was restarted while the job ran")
	case out.written() < end.GetLogBytes():
		out.close("the worker's machine ended before its disk had all output")
	default:
		out.close("")
	}
	return nil
}

// runSteps returns the outcome of the attempt, nil for exit code 0, and the step that decided it.
func (t *attempt) runSteps() (*hwpv1.Outcome, int) {
	if problem := t.assign.GetProblem(); problem != "" {
		return &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_INVALID, ExitCode: runner.ExitNotExecutable, Message: problem}, -1
	}
	var ok bool
	if t.account, ok = t.agent.config.users.take(t.stopped); !ok {
		return t.begin(0), -1
	}
	for i, step := range t.assign.GetSteps() {
		if verdict := t.begin(i); verdict != nil {
			return verdict, -1
		}
		result := t.runStep(i, step)
		outcome, goOn := t.finishStep(result)
		if !goOn {
			return outcome, i
		}
		if i < len(t.assign.GetSteps())-1 {
			t.agent.outbox.add(t)
		}
	}
	return nil, len(t.assign.GetSteps()) - 1
}

// begin notes which step is next, and returns why it must not begin.
func (t *attempt) begin(i int) *hwpv1.Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step, t.stepStop = i, nil
	return t.verdict
}

// finishStep notes how a step ended and says whether the next one follows. The reason for stopping a step wins over how its
// process ended.
func (t *attempt) finishStep(r *hwpv1.StepReport) (outcome *hwpv1.Outcome, goOn bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.process = nil
	switch {
	case t.verdict != nil:
		r.Outcome = t.verdict
	case t.stepStop != nil:
		// A step that somebody cancelled is left out; one whose time is up has failed.
		r.Outcome, goOn = t.stepStop, t.stepStop.GetKind() == hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED
	default:
		goOn = r.GetOutcome() == nil
	}
	r.EndTime = time.Now().UnixNano()
	t.steps = append(slices.Clone(t.steps[:r.GetStep()]), r)
	return r.GetOutcome(), goOn
}

// runStep runs one step to its end and returns its report, without the time of its end.
func (t *attempt) runStep(i int, step *hwpv1.Step) *hwpv1.StepReport {
	r := &hwpv1.StepReport{Step: int32(i)}
	process, err := t.startStep(i, step)
	if err != nil {
		r.Outcome = t.clean(outcomeOfStartError(err))
		return r
	}
	r.StartTime = time.Now().UnixNano()
	t.started(process, r) // before the report, because whoever reads it may cancel the step
	t.agent.outbox.add(t)
	if limit := time.Duration(step.GetTimeout()); limit > 0 {
		timer := time.AfterFunc(limit, func() {
			t.stopStep(i, false, hwpv1.OutcomeKind_OUTCOME_KIND_TIMEOUT, fmt.Sprintf("the step's time limit of %v was reached", limit))
		})
		defer timer.Stop()
	}
	result := process.Wait()
	for _, w := range t.writers {
		w.end()
	}
	return &hwpv1.StepReport{
		Step: r.GetStep(), StartTime: r.GetStartTime(), Outcome: outcomeOfResult(&result),
		UserCpu: int64(result.Usage.UserCPU), SystemCpu: int64(result.Usage.SystemCPU),
		MaxRssKib: int32(min(result.Usage.MaxRSSKiB, math.MaxInt32)),
	}
}

func (t *attempt) startStep(i int, step *hwpv1.Step) (runner.Process, error) {
	secrets, err := t.secretEnv(i, step)
	if err != nil {
		return nil, err
	}
	t.writers = [2]*streamWriter{}
	return t.agent.config.Runner.Start(&runner.Command{
		Argv:             step.GetArgv(),
		Prepare:          func(c *runner.Command) error { return t.prepare(c, i, step, secrets) },
		Terminal:         terminal(step),
		Grace:            cmp.Or(time.Duration(step.GetGrace()), defaultGrace),
		MemoryLimitBytes: int64(t.assign.GetReserved().GetMemoryMib()) << 20,
	})
}

// started makes the process known to stop, which may have been called while it was being started.
func (t *attempt) started(p runner.Process, r *hwpv1.StepReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.process = p
	t.steps = append(t.steps, r)
	if t.verdict != nil || t.stepStop != nil {
		p.Stop(t.force)
	}
}

// stop ends the attempt. The first reason counts; force may be added later.
func (t *attempt) stop(force bool, kind hwpv1.OutcomeKind, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verdict == nil {
		t.verdict = &hwpv1.Outcome{Kind: kind, Message: message}
		if t.stopped != nil {
			close(t.stopped)
		}
	}
	t.force = t.force || force
	if t.process != nil {
		t.process.Stop(t.force)
	}
}

// stopStep ends one step, if it is the one that runs.
func (t *attempt) stopStep(step int, force bool, kind hwpv1.OutcomeKind, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.step != step || t.process == nil {
		return
	}
	if t.stepStop == nil {
		t.stepStop = &hwpv1.Outcome{Kind: kind, Message: message}
	}
	t.process.Stop(force)
}

func (t *attempt) dropOutput() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped = true
	if t.spool != nil {
		t.spool.drop()
	}
}

// output returns the spool, nil when there was no output.
func (t *attempt) output() *spool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spool
}

func outcomeOfStartError(err error) *hwpv1.Outcome {
	outcome := &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_AGENT_ERROR, ExitCode: runner.ExitFailure, Message: err.Error()}
	var start *runner.StartError
	if errors.As(err, &start) {
		outcome.ExitCode = int32(start.ExitCode)
		if start.Invalid {
			outcome.Kind = hwpv1.OutcomeKind_OUTCOME_KIND_INVALID
		}
	}
	return outcome
}

// outcomeOfResult returns nil for exit code 0.
func outcomeOfResult(r *runner.Result) *hwpv1.Outcome {
	if r.Signal == "" && r.ExitCode == 0 {
		return nil
	}
	outcome := &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_EXIT_CODE, ExitCode: int32(r.ExitCode), Signal: r.Signal}
	switch {
	case r.OOMKilled && r.Signal != "":
		outcome.Kind, outcome.Message = hwpv1.OutcomeKind_OUTCOME_KIND_OUT_OF_MEMORY, "the step used more memory than is reserved for it"
	case r.Signal != "":
		outcome.Kind, outcome.Message = hwpv1.OutcomeKind_OUTCOME_KIND_SIGNAL, "the process was ended by "+r.Signal
	}
	return outcome
}

// defaultGrace is the time between SIGTERM and SIGKILL when the server does not say.
const defaultGrace = 10 * time.Second

// prepare fills in what a step that really starts needs.
func (t *attempt) prepare(c *runner.Command, i int, step *hwpv1.Step, secrets []string) error {
	c.ID = fmt.Sprintf("%s-%d-%d", t.ref.GetJobId(), t.ref.GetAttempt(), i)
	if c.Dir = step.GetWorkingDir(); c.Dir == "" || t.agent.config.users.ranged() {
		if err := t.makeWork(); err != nil {
			return err
		}
		c.Dir = cmp.Or(c.Dir, t.work.path)
	}
	c.Env, c.User = append(t.environment(i, step), secrets...), t.user()
	for n, stream := range [...]hwpv1.LogStream{hwpv1.LogStream_LOG_STREAM_STDOUT, hwpv1.LogStream_LOG_STREAM_STDERR} {
		t.writers[n] = &streamWriter{attempt: t, step: int32(i), stream: stream}
	}
	c.Stdout, c.Stderr = t.writers[0], t.writers[1]
	return nil
}

// terminal is what a step runs on; nil: none.
func terminal(step *hwpv1.Step) *runner.Terminal {
	size := step.GetTerminal()
	if size == nil {
		return nil
	}
	return &runner.Terminal{Columns: int(size.GetColumns()), Rows: int(size.GetRows())}
}

// user is whom steps run as.
func (t *attempt) user() *runner.User {
	if t.account == nil {
		return nil
	}
	return &t.account.User
}

// makeWork makes the folder of the attempt, the same for all its steps.
func (t *attempt) makeWork() (err error) {
	if t.work == nil {
		t.work, err = t.agent.workDirs.take(t.user())
	}
	return err
}

// inherited are the variables that steps take over from the agent. Everything else of its environment, secrets above all,
// stays with the agent.
var inherited = sync.OnceValue(func() (env []string) {
	for _, name := range [...]string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SHELL"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
})

func (t *attempt) environment(i int, step *hwpv1.Step) []string {
	env := make([]string, 0, len(inherited())+len(step.GetEnv())+len(step.GetSecrets())+15)
	env = append(env, inherited()...)
	if t.account != nil {
		env = append(env, t.account.environment(t.work)...)
	}
	env = append(env,
		"HODEI=1",
		"HODEI_JOB_ID="+t.ref.GetJobId(),
		"HODEI_JOB_NAME="+strings.ReplaceAll(t.assign.GetJobName(), "\x00", ""),
		"HODEI_NAMESPACE="+cmp.Or(t.assign.GetNamespace(), "default"),
		"HODEI_QUEUE="+cmp.Or(t.assign.GetQueue(), "default"),
		"HODEI_ATTEMPT="+strconv.Itoa(int(t.ref.GetAttempt())),
		"HODEI_STEP="+step.GetName(),
		"HODEI_STEP_INDEX="+strconv.Itoa(i),
	)
	if step.GetTerminal() != nil {
		env = append(env, "TERM=xterm-256color") // what the spec says comes behind it
	}
	if socket := t.agent.jobSocket; socket != nil {
		env = append(env, SocketVariable+"="+socket.path)
	}
	for name, value := range step.GetEnv() {
		env = append(env, name+"="+value)
	}
	return env
}
