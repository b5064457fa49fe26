package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/hodei-jobs/hodei/agent/runner"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// attempt is one run of a job's steps.
type attempt struct {
	agent  *agent
	ref    *hwpv1.AttemptRef
	assign *hwpv1.Assign
	dir    string
	spool  *spool        // nil when it could not be opened
	ended  chan struct{} // closed when nothing of it runs and its end was reported

	number   uint64                  // in the order in which attempts were taken
	logAcked atomic.Bool             // the server has the end of its log
	endSent  atomic.Pointer[shipper] // of the session in which the end of its log was sent

	mu       sync.Mutex
	process  runner.Process // of the step that runs
	step     int            // the index of the step that runs
	verdict  *hwpv1.Outcome // why the attempt is being stopped
	stepStop *hwpv1.Outcome // why the step is being stopped
	force    bool
}

func newAttempt(a *agent, assign *hwpv1.Assign, dir string) *attempt {
	return &attempt{agent: a, ref: assign.GetAttempt(), assign: assign, dir: dir, step: -1, ended: make(chan struct{})}
}

// over reports whether nothing of the attempt runs and its end was reported.
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
	defer close(t.ended)
	outcome, decisive := t.prepare()
	if outcome == nil {
		if limit := t.assign.GetTimeout().AsDuration(); limit > 0 {
			timer := time.AfterFunc(limit, func() {
				t.stop(false, hwpv1.OutcomeKind_OUTCOME_KIND_TIMEOUT, fmt.Sprintf("the job's time limit of %v was reached", limit))
			})
			defer timer.Stop()
		}
		outcome, decisive = t.runSteps()
	}
	t.spool.close("")
	_ = os.RemoveAll(t.workDir()) // a process that could not be killed may keep files; the folder goes with the attempt
	if err := t.reportFinished(outcome, decisive); err != nil {
		t.agent.config.Logger.Error("the end of a job was not written to the journal", "job", t.ref.GetJobId(), "error", err)
	}
}

func (t *attempt) workDir() string { return filepath.Join(t.dir, "work") }

// spoolConfig says where the attempt's output goes, and who is told about it.
func (t *attempt) spoolConfig() spoolConfig {
	slots := t.agent.slots
	return spoolConfig{
		dir: filepath.Join(t.dir, "output"), limit: t.agent.config.SpoolLimitBytes, flying: &slots.flying,
		ready: func() {
			slots.ready.add(t)
			t.agent.signal()
		},
	}
}

// prepare makes the attempt's folder. It returns an outcome when that is not possible.
func (t *attempt) prepare() (*hwpv1.Outcome, int) {
	t.mu.Lock()
	t.spool = newSpool(t.spoolConfig())
	t.mu.Unlock()
	if err := os.MkdirAll(t.workDir(), 0o700); err != nil {
		return &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_AGENT_ERROR, ExitCode: runner.ExitFailure, Message: err.Error()}, -1
	}
	return nil, -1
}

// runSteps returns the outcome of the attempt and the step that decided it.
func (t *attempt) runSteps() (*hwpv1.Outcome, int) {
	success := &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_EXIT_CODE}
	for i, step := range t.assign.GetSteps() {
		if verdict := t.begin(i); verdict != nil {
			return verdict, -1
		}
		outcome, usage := t.runStep(i, step)
		outcome, goOn := t.finishStep(outcome)
		t.report(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_StepFinished{StepFinished: &hwpv1.StepFinished{
			Attempt: t.ref, Step: int32(i), Time: now(), Outcome: outcome, Usage: usage,
		}}})
		if !goOn {
			return outcome, i
		}
	}
	return success, len(t.assign.GetSteps()) - 1
}

// begin notes which step is next, and returns why it must not begin.
func (t *attempt) begin(i int) *hwpv1.Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step, t.stepStop = i, nil
	return t.verdict
}

// finishStep lets the reason for stopping a step win over how its process ended, and says whether the next one follows.
func (t *attempt) finishStep(outcome *hwpv1.Outcome) (*hwpv1.Outcome, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.process = nil
	switch {
	case t.verdict != nil:
		return t.verdict, false
	case t.stepStop != nil:
		// A step that somebody cancelled is left out; one whose time is up has failed.
		return t.stepStop, t.stepStop.GetKind() == hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED
	}
	return outcome, outcome.GetKind() == hwpv1.OutcomeKind_OUTCOME_KIND_EXIT_CODE && outcome.GetExitCode() == 0
}

// runStep runs one step to its end.
func (t *attempt) runStep(i int, step *hwpv1.Step) (*hwpv1.Outcome, *hwpv1.StepUsage) {
	process, err := t.agent.config.Runner.Start(t.command(i, step))
	if err != nil {
		return outcomeOfStartError(err), nil
	}
	t.started(process) // before the report, because whoever reads it may cancel the step
	t.report(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_StepStarted{StepStarted: &hwpv1.StepStarted{
		Attempt: t.ref, Step: int32(i), Time: now(),
	}}})
	if limit := step.GetTimeout().AsDuration(); limit > 0 {
		timer := time.AfterFunc(limit, func() {
			t.stopStep(i, false, hwpv1.OutcomeKind_OUTCOME_KIND_TIMEOUT, fmt.Sprintf("the step's time limit of %v was reached", limit))
		})
		defer timer.Stop()
	}
	return outcomeOfResult(process.Wait())
}

// started makes the process known to stop, which may have been called while it was being started.
func (t *attempt) started(p runner.Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.process = p
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
	if t.spool != nil {
		t.spool.drop()
	}
}

// output returns the spool, nil while the attempt is being prepared.
func (t *attempt) output() *spool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spool
}

func (t *attempt) report(m *hwpv1.AgentMessage) {
	if err := t.agent.outbox.add(m); err != nil {
		t.agent.config.Logger.Error("a report was not written to the journal; it is sent, but a crash would lose it", "error", err)
	}
}

func (t *attempt) reportFinished(outcome *hwpv1.Outcome, step int) error {
	report := t.agent.outbox.add(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_AttemptFinished{AttemptFinished: &hwpv1.AttemptFinished{
		Attempt: t.ref, Time: now(), Outcome: outcome, Step: int32(step),
	}}})
	return errors.Join(report, t.agent.journal.finish(t.ref))
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

func outcomeOfResult(r runner.Result) (*hwpv1.Outcome, *hwpv1.StepUsage) {
	outcome := &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_EXIT_CODE, ExitCode: int32(r.ExitCode), Signal: r.Signal}
	switch {
	case r.OOMKilled && r.Signal != "":
		outcome.Kind, outcome.Message = hwpv1.OutcomeKind_OUTCOME_KIND_OUT_OF_MEMORY, "the step used more memory than is reserved for it"
	case r.Signal != "":
		outcome.Kind, outcome.Message = hwpv1.OutcomeKind_OUTCOME_KIND_SIGNAL, "the process was ended by "+r.Signal
	}
	return outcome, &hwpv1.StepUsage{
		UserCpu: durationpb.New(r.Usage.UserCPU), SystemCpu: durationpb.New(r.Usage.SystemCPU),
		MaxRssKib: int32(min(r.Usage.MaxRSSKiB, math.MaxInt32)),
	}
}

// command makes what the runner starts.
func (t *attempt) command(i int, step *hwpv1.Step) runner.Command {
	dir := step.GetWorkingDir()
	if dir == "" {
		dir = t.workDir()
	}
	index := int32(i)
	return runner.Command{
		ID:   fmt.Sprintf("%s-%d-%d", t.ref.GetJobId(), t.ref.GetAttempt(), i),
		Argv: step.GetArgv(), Env: t.environment(i, step), Dir: dir,
		Stdout:           &streamWriter{attempt: t, step: index, stream: hwpv1.LogStream_LOG_STREAM_STDOUT},
		Stderr:           &streamWriter{attempt: t, step: index, stream: hwpv1.LogStream_LOG_STREAM_STDERR},
		Grace:            step.GetGrace().AsDuration(),
		MemoryLimitBytes: int64(t.assign.GetReserved().GetMemoryMib()) << 20,
	}
}

// inherited are the variables that steps take over from the agent. Everything else of its environment, secrets above all,
// stays with the agent.
var inherited = [...]string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SHELL"}

func (t *attempt) environment(i int, step *hwpv1.Step) []string {
	env := make([]string, 0, len(inherited)+len(step.GetEnv())+9)
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	env = append(env,
		"HODEI=1",
		"HODEI_JOB_ID="+t.ref.GetJobId(),
		"HODEI_JOB_NAME="+strings.ReplaceAll(t.assign.GetJobName(), "\x00", ""),
		"HODEI_NAMESPACE="+t.assign.GetNamespace(),
		"HODEI_QUEUE="+t.assign.GetQueue(),
		"HODEI_ATTEMPT="+strconv.Itoa(int(t.ref.GetAttempt())),
		"HODEI_STEP="+step.GetName(),
		"HODEI_STEP_INDEX="+strconv.Itoa(i),
	)
	for name, value := range step.GetEnv() {
		env = append(env, name+"="+value)
	}
	return env
}
