package orchestrator

import (
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// simClients submit jobs and cancel some of them. They repeat what they got no answer to.
type simClients struct {
	w     *simWorld
	made  int      // submissions
	known []job.ID // of acknowledged jobs, in the order of the answers
	open  int      // submissions without an answer, which will be repeated
}

// simScript is what a job does: for each attempt and step, how long it takes and how it ends.
type simScript struct {
	steps   int
	seconds [][]float64
	codes   [][]int32
	endless bool // its last step runs until somebody stops it
}

func (s *simScript) of(attempt int32, step int) (time.Duration, int32) {
	i := min(int(attempt)-1, len(s.seconds)-1)
	return time.Duration(s.seconds[i][step] * float64(time.Second)), s.codes[i][step]
}

// simSubmission is what a client asks for until it has an answer.
type simSubmission struct {
	Submission

	number   int
	tries    int
	answered bool
}

// spec makes a job and its script.
func (c *simClients) spec(name string) job.Spec {
	w := c.w
	s := job.Spec{
		Name: name, MaxAttempts: []int32{1, 1, 1, 2, 3}[w.rng.IntN(5)], Priority: int32(w.rng.IntN(3)) - 1,
		Backoff: job.Backoff{Initial: w.between(200*time.Millisecond, 4*time.Second), Max: 15 * time.Second, Factor: 2},
		Timeout: w.between(40*time.Second, 2*time.Minute),
	}
	if w.longJobs {
		s.MaxAttempts = 3
		s.Backoff.Initial = 200 * time.Millisecond
	}
	switch w.rng.IntN(5) {
	case 0:
		s.Resources = job.Resources{MilliCPU: 500}
	case 1:
		s.Resources = job.Resources{MilliCPU: 1000, MemoryMiB: 512}
	case 2:
		s.Resources = job.Resources{MilliCPU: 2000, MemoryMiB: 1024, Extras: map[string]int32{"gpu": 1}}
	}
	switch w.rng.IntN(6) {
	case 0:
		s.Constraints = []job.Constraint{{Label: "disk", Operator: job.OperatorIn, Values: []string{"ssd"}}}
	case 1:
		s.Constraints = []job.Constraint{{Label: "zone", Operator: job.OperatorExists}}
	}
	if w.chance(0.15) {
		s.RunAfter = w.now.Add(w.between(time.Second, 2*time.Minute))
	}
	script := simScript{steps: 1 + w.rng.IntN(3), endless: w.chance(0.05)}
	for range s.MaxAttempts {
		seconds, codes := make([]float64, script.steps), make([]int32, script.steps)
		for i := range seconds {
			seconds[i] = w.rng.ExpFloat64() * 4
			if w.longJobs || w.chance(0.2) {
				seconds[i] *= 5
			}
			if w.chance(0.2) {
				codes[i] = 1 + int32(w.rng.IntN(3))
			}
		}
		script.seconds, script.codes = append(script.seconds, seconds), append(script.codes, codes)
	}
	for i := range script.steps {
		s.Steps = append(s.Steps, job.Step{Name: fmt.Sprintf("s%d", i), Argv: []string{"true"}})
	}
	w.scripts[name] = script
	return s
}

// submit makes a submission of n jobs and sends it.
func (c *simClients) submit(n int) {
	c.made++
	s := &simSubmission{number: c.made}
	for i := range n {
		spec := c.spec(fmt.Sprintf("job-%d-%d", c.made, i))
		if c.w.chance(0.03) {
			spec.Steps[0].Name, spec.Steps[0].Argv = "invalid", nil
		}
		s.Specs = append(s.Specs, spec)
	}
	if c.w.chance(0.7) {
		s.RequestID = fmt.Sprintf("request-%d", c.made)
		s.Hash = [32]byte{byte(c.made), byte(c.made >> 8)}
	}
	c.open++
	c.send(s)
}

// send sends a submission, which arrives or not, and repeats it when no answer comes in time. Without a request_id it cannot
// be repeated.
func (c *simClients) send(s *simSubmission) {
	w := c.w
	s.tries++
	copies := 1
	if s.RequestID != "" && w.fault(w.faults.answer/3) {
		copies = 2
	}
	for range copies {
		w.after(w.between(time.Millisecond, 80*time.Millisecond), func() { c.arrive(s) })
	}
	if s.RequestID == "" {
		w.after(5*time.Second, func() { c.answered(s) })
		return
	}
	w.after(w.between(3*time.Second, 12*time.Second), func() {
		if !s.answered {
			c.send(s)
		} else if w.fault(0.1) {
			s.tries++
			c.arrive(s) // a proxy says it again, long after the answer
		}
	})
}

func (c *simClients) arrive(s *simSubmission) {
	w := c.w
	server := w.server
	if server == nil {
		return
	}
	server.whenAwake(func() {
		cmd := newSubmit([]Submission{s.Submission}, w.now)
		server.put(cmd, func(err error) {
			if err != nil {
				return
			}
			if w.audit.submitAcknowledged(&s.Submission, cmd.results) || w.fault(w.faults.answer) {
				return // not answered for good, or the answer is lost
			}
			for i := range cmd.results {
				if cmd.results[i].Err == nil && !s.answered {
					c.known = append(c.known, cmd.results[i].Job.ID)
				}
			}
			c.answered(s)
		})
	})
}

func (c *simClients) answered(s *simSubmission) {
	if !s.answered {
		s.answered = true
		c.open--
	}
}

// cancel asks for the end of some job, or of one of its steps.
func (c *simClients) cancel() {
	if len(c.known) == 0 {
		return
	}
	id := c.known[c.w.rng.IntN(len(c.known))]
	if c.w.chance(0.7) { // rather a late one, which has not ended
		id = c.known[len(c.known)-1-c.w.rng.IntN(min(len(c.known), 10))]
	}
	step := ""
	if c.w.chance(0.3) {
		step = "s0"
	}
	c.sendCancel(id, step, c.w.chance(0.3), 0)
}

func (c *simClients) sendCancel(id job.ID, step string, force bool, tries int) {
	w := c.w
	server := w.server
	answered := false
	w.audit.cancelAsked(id, step)
	if server != nil {
		server.whenAwake(func() {
			cmd := &cancel{waiter: newWaiter(), id: id, step: step, request: job.CancelRequest{Actor: "user/sim", Force: force}}
			server.put(cmd, func(err error) {
				if err == nil {
					w.audit.cancelAnswered(cmd)
					answered = !w.fault(w.faults.answer)
				}
			})
		})
	}
	w.after(w.between(2*time.Second, 6*time.Second), func() {
		if !answered && tries < 5 {
			c.sendCancel(id, step, force, tries+1)
		}
	})
}

// drain makes a worker take no more jobs, or take them again.
func (c *simClients) drain(worker job.WorkerID, draining bool) {
	server, audit := c.w.server, c.w.audit
	if server == nil {
		return
	}
	server.whenAwake(func() {
		if !draining { // from here on it may get jobs, even before the answer
			audit.undrains[worker]++
			audit.drained[worker] = false
		}
		asked := audit.undrains[worker]
		cmd := &drain{waiter: newWaiter(), worker: string(worker), draining: draining}
		server.put(cmd, func(err error) {
			if err == nil && cmd.err == nil && audit.undrains[worker] == asked {
				audit.drained[worker] = draining
			}
		})
	})
}
