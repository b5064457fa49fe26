package e2e

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// action is what was done to a job.
type action uint8

const (
	submitting action = iota
	getting
	canceling
	starting // by the job itself: it says that one of its attempts runs
)

// call is an operation on one job. Jobs are told apart by the request that made them, because a client whose submit was not
// answered does not know the id.
type call struct {
	action      action
	request     string
	maxAttempts int32 // of the job
	attempt     int32 // of starting
}

// verdict is what a client learned of a call.
type verdict uint8

const (
	answered verdict = iota
	unknown          // the reply was lost: the call may have had its effect, may have it later, or never
	notFound
	hasEnded // a cancel came too late
)

// answer is what a call gave.
type answer struct {
	verdict verdict
	id      string
	state   hodeiv1.JobState
	attempt int32
}

// life is what is known of a job at a moment. It is comparable, so that the checker can tell lives apart.
type life struct {
	exists   bool
	id       string           // empty: nobody was told yet
	state    hodeiv1.JobState // the last one that was seen
	attempt  int32            // that state's
	canceled bool             // somebody may have asked for the end
	ended    bool             // it is over, seen or not
	started  uint64           // a bit for each attempt that ran
}

// step is the model: whether a call can have this answer at this moment of a job's life, and what is known then.
func (l life) step(c call, a answer) (bool, life) {
	if c.action == starting {
		return l.start(c)
	}
	switch {
	case a.verdict == notFound:
		return !l.exists, l
	case a.verdict == unknown && c.action == submitting:
		return true, l.accepted()
	case a.verdict == unknown && c.action == canceling:
		l.canceled = true
		return true, l
	case a.verdict == unknown:
		return true, l
	}
	if c.action == submitting {
		l = l.accepted()
	}
	if !l.exists || l.id != "" && a.id != l.id {
		return false, l
	}
	l.id = a.id
	if a.verdict == hasEnded {
		l.ended = true
		return c.action == canceling, l
	}
	if c.action == canceling {
		l.canceled = true
		if !terminal(a.state) && a.state != hodeiv1.JobState_JOB_STATE_CANCELING {
			return false, l
		}
	}
	return l.see(c, a)
}

func (l life) accepted() life {
	if !l.exists {
		l.exists, l.state = true, hodeiv1.JobState_JOB_STATE_QUEUED
	}
	return l
}

// see takes in a state that the server told.
func (l life) see(c call, a answer) (bool, life) {
	asked := a.state == hodeiv1.JobState_JOB_STATE_CANCELING || a.state == hodeiv1.JobState_JOB_STATE_CANCELED
	switch {
	case a.attempt > c.maxAttempts, a.attempt < l.lastStarted():
		return false, l
	case !follows(l.state, l.attempt, a.state, a.attempt):
		return false, l
	case l.ended && !terminal(a.state), asked && !l.canceled:
		return false, l
	case waits(a.state) && a.attempt == c.maxAttempts: // for an attempt that it does not have
		return false, l
	}
	l.state, l.attempt, l.ended = a.state, a.attempt, terminal(a.state)
	return true, l
}

// start takes in that an attempt ran, by the word of its own process.
func (l life) start(c call) (bool, life) {
	bit := uint64(1) << c.attempt
	if !l.exists || l.started&bit != 0 || c.attempt < 1 || c.attempt > c.maxAttempts {
		return false, l
	}
	l.started |= bit
	return true, l
}

// lastStarted is the highest attempt that ran.
func (l life) lastStarted() int32 {
	for n := int32(63); n > 0; n-- {
		if l.started&(1<<n) != 0 {
			return n
		}
	}
	return 0
}

func terminal(s hodeiv1.JobState) bool { return s >= hodeiv1.JobState_JOB_STATE_SUCCEEDED }

func waits(s hodeiv1.JobState) bool { return s <= hodeiv1.JobState_JOB_STATE_QUEUED }

// follows reports whether a job can come from one state and attempt to another, in any number of steps. An attempt goes from
// ASSIGNED to RUNNING; the next one follows after a wait, but never after a cancel; terminal states absorb.
func follows(from hodeiv1.JobState, attempt int32, to hodeiv1.JobState, toAttempt int32) bool {
	switch {
	case from == to && attempt == toAttempt:
		return true
	case terminal(from), toAttempt < attempt:
		return false
	case toAttempt > attempt:
		return from != hodeiv1.JobState_JOB_STATE_CANCELING
	}
	switch {
	case waits(from) && waits(to):
		return to == hodeiv1.JobState_JOB_STATE_QUEUED
	case waits(from):
		return to == hodeiv1.JobState_JOB_STATE_CANCELED
	case waits(to):
		return from != hodeiv1.JobState_JOB_STATE_CANCELING
	}
	return to > from
}

// lifeModel is the model in the checker's form, for the history of one job.
func lifeModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return life{} },
		Step: func(state, input, output any) (bool, any) {
			ok, next := state.(life).step(input.(call), output.(answer))
			return ok, next
		},
	}
}

// checkTime is how long the checker may think about one job.
const checkTime = time.Minute

// checkLives returns what is wrong with a history: one text for each job whose operations cannot have happened, in any order
// that their times allow. A job on which the checker gives up is wrong too.
func checkLives(history []porcupine.Operation) []string {
	byRequest := make(map[string][]porcupine.Operation)
	for _, o := range history {
		request := o.Input.(call).request
		byRequest[request] = append(byRequest[request], o)
	}
	var wrong []string
	for request, operations := range byRequest {
		if result := porcupine.CheckOperationsTimeout(lifeModel(), operations, checkTime); result != porcupine.Ok {
			wrong = append(wrong, fmt.Sprintf("the history of request %s is %s:\n%s", request, result, describe(operations)))
		}
	}
	slices.Sort(wrong)
	return wrong
}

func describe(operations []porcupine.Operation) string {
	operations = slices.Clone(operations)
	slices.SortFunc(operations, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var out strings.Builder
	for _, o := range operations {
		c, a := o.Input.(call), o.Output.(answer)
		names := [...]string{"submit", "get", "cancel", fmt.Sprintf("attempt %d starts", c.attempt)}
		results := [...]string{fmt.Sprintf("%s attempt %d of %s", a.state, a.attempt, a.id), "no answer", "not found", "has ended"}
		end := "never"
		if o.Return != math.MaxInt64 {
			end = time.Duration(o.Return - operations[0].Call).String()
		}
		fmt.Fprintf(&out, "  %v to %s: client %d: %s -> %s\n", time.Duration(o.Call-operations[0].Call), end, o.ClientId, names[c.action], results[a.verdict])
	}
	return out.String()
}

// sequence makes a history of operations that follow each other.
func sequence(maxAttempts int32, steps ...any) []porcupine.Operation {
	var history []porcupine.Operation
	for i := 0; i < len(steps); i += 2 {
		c := steps[i].(call)
		c.request, c.maxAttempts = "r", maxAttempts
		o := porcupine.Operation{Input: c, Output: steps[i+1], Call: int64(10 * i), Return: int64(10*i + 5)}
		if steps[i+1].(answer).verdict == unknown {
			o.Return = math.MaxInt64
		}
		history = append(history, o)
	}
	return history
}

// The checker must bite: each of these histories has one thing in it that must never happen.
func TestCheckerRefusesBadHistories(t *testing.T) {
	t.Parallel()
	submit, get, cancel := call{action: submitting}, call{action: getting}, call{action: canceling}
	start := func(attempt int32) call { return call{action: starting, attempt: attempt} }
	saw := func(state hodeiv1.JobState, attempt int32) answer {
		return answer{id: "job_1", state: state, attempt: attempt}
	}
	queued, assigned, running := saw(hodeiv1.JobState_JOB_STATE_QUEUED, 0), saw(hodeiv1.JobState_JOB_STATE_ASSIGNED, 1), saw(hodeiv1.JobState_JOB_STATE_RUNNING, 1)
	succeeded, failed := saw(hodeiv1.JobState_JOB_STATE_SUCCEEDED, 1), saw(hodeiv1.JobState_JOB_STATE_FAILED, 1)
	stopping, canceled := saw(hodeiv1.JobState_JOB_STATE_CANCELING, 1), saw(hodeiv1.JobState_JOB_STATE_CANCELED, 1)
	delayed, second := saw(hodeiv1.JobState_JOB_STATE_DELAYED, 1), saw(hodeiv1.JobState_JOB_STATE_RUNNING, 2)
	lost, none, late, ok := answer{verdict: unknown}, answer{verdict: notFound}, answer{verdict: hasEnded, id: "job_1"}, answer{}
	other := answer{id: "job_2", state: hodeiv1.JobState_JOB_STATE_QUEUED}
	for name, history := range map[string][]porcupine.Operation{
		"acknowledged job is lost":            sequence(1, submit, queued, get, none),
		"acknowledged job cannot be canceled": sequence(1, submit, queued, cancel, none),
		"ended job is resurrected":            sequence(3, submit, queued, get, succeeded, get, running),
		"ended job changes its end":           sequence(1, submit, queued, get, succeeded, get, failed),
		"ended job runs again":                sequence(3, submit, queued, get, failed, get, second),
		"attempt goes back":                   sequence(3, submit, queued, get, second, get, running),
		"attempt goes back behind its start":  sequence(3, submit, queued, start(2), ok, get, running),
		"state goes back":                     sequence(1, submit, queued, get, running, get, assigned),
		"only attempt is to be tried again":   sequence(1, submit, queued, get, running, get, delayed),
		"second start of an only attempt":     sequence(1, submit, queued, start(1), ok, start(1), ok),
		"another attempt than may be":         sequence(1, submit, queued, start(1), ok, start(2), ok),
		"more attempts are told than may be":  sequence(1, submit, queued, get, second),
		"job runs that nobody submitted":      sequence(1, start(1), ok),
		"request makes two jobs":              sequence(1, submit, queued, submit, other),
		"get gives another job":               sequence(1, submit, queued, get, other),
		"canceled job that nobody canceled":   sequence(1, submit, queued, get, canceled),
		"job is canceled before it was asked": sequence(1, submit, queued, get, stopping, cancel, stopping),
		"cancel leaves the job running":       sequence(1, submit, queued, cancel, running),
		"canceled job runs on":                sequence(1, submit, queued, cancel, stopping, get, running),
		"canceled job is tried again":         sequence(3, submit, queued, cancel, stopping, get, delayed),
		"too late for a cancel, yet it runs":  sequence(1, submit, queued, cancel, late, get, running),
		"lost submit, found and then lost":    sequence(1, submit, lost, get, queued, get, none),
	} {
		if len(checkLives(history)) != 1 {
			t.Errorf("%s: the checker finds nothing wrong with\n%s", name, describe(history))
		}
	}
	for name, history := range map[string][]porcupine.Operation{
		"a plain life":                            sequence(1, submit, queued, get, assigned, start(1), ok, get, running, get, succeeded, submit, succeeded),
		"a second attempt":                        sequence(2, submit, queued, start(1), ok, get, delayed, start(2), ok, get, second),
		"lost submit that took effect later":      sequence(1, get, none, submit, lost, get, none, get, queued),
		"lost submit that never did":              sequence(1, submit, lost, get, none),
		"lost submit, repeated":                   sequence(1, submit, lost, submit, queued, submit, queued),
		"lost cancel that took effect much later": sequence(1, submit, queued, cancel, lost, get, running, get, stopping, get, canceled),
		"cancel that the job's end beat":          sequence(1, submit, queued, cancel, stopping, get, succeeded),
		"cancel that came too late":               sequence(1, submit, queued, cancel, late, get, failed),
		"cancel of a waiting job":                 sequence(1, submit, queued, cancel, answer{id: "job_1", state: hodeiv1.JobState_JOB_STATE_CANCELED}),
	} {
		if wrong := checkLives(history); len(wrong) != 0 {
			t.Errorf("%s: %s", name, wrong)
		}
	}
}

// The order of operations is that of their times, and only where these leave a choice does the checker choose.
func TestCheckerKnowsWhatIsConcurrent(t *testing.T) {
	t.Parallel()
	at := func(from, to int64, action action, a answer) porcupine.Operation {
		return porcupine.Operation{Input: call{action: action, request: "r", maxAttempts: 1}, Output: a, Call: from, Return: to}
	}
	queued := answer{id: "job_1", state: hodeiv1.JobState_JOB_STATE_QUEUED}
	running := answer{id: "job_1", state: hodeiv1.JobState_JOB_STATE_RUNNING, attempt: 1}
	overlapping := []porcupine.Operation{at(0, 5, submitting, queued), at(10, 30, getting, running), at(20, 40, getting, queued)}
	if wrong := checkLives(overlapping); len(wrong) != 0 {
		t.Error(wrong)
	}
	following := []porcupine.Operation{at(0, 5, submitting, queued), at(10, 30, getting, running), at(31, 40, getting, queued)}
	if len(checkLives(following)) != 1 {
		t.Error("a state that goes back in time is accepted")
	}
}
