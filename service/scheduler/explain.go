package scheduler

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Explanation says why a job waits.
type Explanation struct {
	Text     string        // in one sentence
	Filters  []FilterCount // how many workers each filter refuses, each worker counted once, under the first that does
	Workers  int           // that are known
	Fitting  int           // that can take it now
	Ahead    int           // jobs of its queue that are more urgent
	Limit    string        // the limit that binds; empty: none
	Earliest time.Time     // when it may start if those that run end when they are expected to, and nothing goes before it; zero: unknown
	Advice   string        // what would let it start; empty: nothing but to wait

	Prediction Prediction // what its family has taken; without runs when that is not known
	Sizing     string     // what would be better to ask for; empty: nothing
}

// FilterCount is what one filter says.
type FilterCount struct {
	Filter  string
	Workers int
	Text    string
}

// Explain says why a job waits, or why one would that is not submitted; then the id is zero.
func (s *Scheduler) Explain(id job.ID, spec *job.Spec, again bool, now time.Time) Explanation {
	s.now = now
	l := s.find(id, spec, again)
	if l == nil {
		l = s.line(spec, again)
	}
	e := Explanation{Ahead: s.ahead(l, id)}
	if p, ok := s.Predict(spec); ok {
		e.Prediction, e.Sizing = p, sizing(spec, &p)
	}
	if s.findReason(&e, l, id); e.Workers == 0 {
		return e
	}
	s.estimate(&e, l, id)
	if e.Advice == "" {
		e.Advice = s.advise(&e, l)
	}
	return e
}

// findReason finds why a job of a line waits, and what would help at once.
func (s *Scheduler) findReason(e *Explanation, l *line, id job.ID) {
	free := s.judge(e, l.shape)
	switch {
	case e.Workers == 0:
		e.Text = "no worker has ever connected; start one with `hodei agent`, `hodei token create` shows how"
		e.Advice = "connect a worker"
	case id.IsZero() && s.TooLarge(l.spec) != "":
		e.Limit, e.Text = "too_large", "it would be refused: "+s.TooLarge(l.spec)
	case s.explainLimit(e, l, id):
	case e.Fitting == 0:
		e.Text = "no worker can take it now: " + joinTexts(e.Filters)
	case s.explainReserved(e, l, id, free):
	case l.gang != nil && l.waiting.size > 0 && s.explainGang(e, l):
	case id.IsZero() && e.Ahead == 0:
		e.Text = "nothing keeps it: it would start when it is submitted"
	case e.Ahead > 0:
		e.Text = fmt.Sprintf("%s of its queue %s more urgent", jobs(e.Ahead), areOrIs(e.Ahead))
	default:
		e.Text = "its turn has not come yet: others are to get their part of the workers first"
	}
}

// reasonAge is how old the reason may be that is kept for jobs which will have started when somebody asks.
const reasonAge = time.Second

// keepReason notes, without a look at the workers, why the jobs of a line wait.
func (s *Scheduler) keepReason(l *line) {
	if s.now.Sub(l.reasonAt) < reasonAge {
		return
	}
	l.reasonAt = s.now
	var e Explanation
	if s.explainLimit(&e, l, l.waiting.first()) {
		l.reason = e.Text
		return
	}
	fitting := 0
	for _, word := range l.shape.fits {
		fitting += bits.OnesCount64(word)
	}
	l.reason = fmt.Sprintf("no worker had free what it needs: %s; of those that may take it there were %d", describe(l.shape.resources), fitting)
}

// TooLarge says that no worker that is known could ever take a job, because it asks for more than the largest has; empty: one could,
// or none is known yet.
func (s *Scheduler) TooLarge(spec *job.Spec) string {
	if r := &spec.Resources; r.MilliCPU == 0 && r.MemoryMiB == 0 && len(r.Extras) == 0 {
		return ""
	}
	if n := s.queues[queueKey{spec.Namespace, spec.Queue}]; n != nil && n.queue.AwaitsWorkers {
		return ""
	}
	ask := s.names.amount(spec.Resources, 0)
	var most amount
	known, whose := false, ""
	for _, c := range s.cells.all {
		if c == nil || c.capacity.jobs == 0 {
			continue // it had jobs when the server started, and has not come back
		}
		if !c.worker.Serves(spec.Namespace, spec.Queue) {
			whose = " that serves its queue"
			continue
		}
		if c.capacity.covers(&ask) {
			return ""
		}
		known = true
		most.raise(&c.capacity)
	}
	if !known {
		return ""
	}
	lacking := "no single worker" + whose + " has all of that"
	if parts := s.lacks(&ask, &most); len(parts) > 0 {
		lacking = "the largest worker" + whose + " has " + strings.Join(parts, " and ")
	}
	return fmt.Sprintf("it needs %s, and %s; ask for less, or submit it to a queue that awaits larger workers (`hodei queue set --await-workers`)",
		describe(spec.Resources), lacking)
}

// lacks says how much there is of each thing of which a job asks for more.
func (s *Scheduler) lacks(ask, most *amount) []string {
	var parts []string
	if ask.cpu > most.cpu {
		parts = append(parts, cpus(most.cpu))
	}
	if ask.memory > most.memory {
		parts = append(parts, fmt.Sprintf("%d MiB of memory", most.memory))
	}
	most.extras = grow(most.extras, len(ask.extras))
	for i, n := range ask.extras {
		if n > most.extras[i] {
			parts = append(parts, fmt.Sprintf("%d %s", most.extras[i], s.names.list[i]))
		}
	}
	return parts
}

// judge asks the filters about every worker, and returns those that can take a job.
func (s *Scheduler) judge(e *Explanation, sh *shape) (fitting []*cell) {
	var refused [len(filters)][]*cell
	for _, c := range s.cells.all {
		if c == nil {
			continue
		}
		e.Workers++
		if i := firstRefusal(sh, c); i < 0 {
			fitting = append(fitting, c)
		} else {
			refused[i] = append(refused[i], c)
		}
	}
	e.Fitting = len(fitting)
	for i := range filters {
		if n := len(refused[i]); n > 0 {
			e.Filters = append(e.Filters, FilterCount{filters[i].name, n, filters[i].explain(sh, refused[i])})
		}
	}
	return fitting
}

func firstRefusal(sh *shape, c *cell) int {
	for i := range filters {
		if !filters[i].check(sh, c) {
			return i
		}
	}
	return -1
}

func joinTexts(list []FilterCount) string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = list[i].Text
	}
	return strings.Join(texts, "; ")
}

// explainLimit reports whether something other than the workers keeps the job, and says what.
func (s *Scheduler) explainLimit(e *Explanation, l *line, id job.ID) bool {
	need := l.shape.ask
	if g := l.gang; g != nil {
		missing := int(g.key.size) - g.waiting - g.running
		if id.IsZero() {
			missing-- // it would be one of them
		}
		if missing > 0 {
			e.Limit = "gang"
			e.Text = fmt.Sprintf("%s of its gang %q %s not there yet; all %d start together", jobs(missing), g.key.name, areOrIs(missing), g.key.size)
			e.Advice = "submit the rest of the gang"
			return true
		}
		need = g.need()
	}
	if g := l.gate; g != nil && !g.open(l) {
		e.Limit = "concurrency"
		e.Text = fmt.Sprintf("%s with the concurrency key %q %s, as many as it allows", jobs(len(g.running)), g.key.key, runOrRuns(len(g.running)))
		return true
	}
	n, limit := l.node.limited(&need, s.now)
	if limit == noLimit {
		return false
	}
	what := s.describeNode(n)
	switch limit {
	case pausedLimit:
		e.Limit, e.Text = "paused", what+" is paused"
		e.Advice = fmt.Sprintf("`hodei queue resume %s --namespace %s`", n.name, n.queue.Namespace)
	case runningLimit:
		e.Limit = "running"
		e.Text = fmt.Sprintf("%s of %s %s, as many as its limit allows", jobs(int(n.used.jobs)), what, runOrRuns(int(n.used.jobs)))
	case rateLimit:
		e.Limit = "starts_per_minute"
		e.Text = fmt.Sprintf("%s starts at most %d jobs a minute", what, n.limits.StartsPerMinute)
		e.Earliest = n.starts.next(s.now)
	case cpuLimit:
		e.Limit = "milli_cpu"
		if need.cpu > int64(n.limits.MilliCPU) {
			e.Advice = "raise the limit: it is larger than the limit allows even alone"
		}
		e.Text = fmt.Sprintf("it needs %s; %s may hold %s and holds %s",
			cpus(need.cpu), what, cpus(int64(n.limits.MilliCPU)), cpus(n.used.cpu))
	case memoryLimit:
		e.Limit = "memory_mib"
		if need.memory > int64(n.limits.MemoryMiB) {
			e.Advice = "raise the limit: it is larger than the limit allows even alone"
		}
		e.Text = fmt.Sprintf("it needs %d MiB of memory; %s may hold %d and holds %d", need.memory, what, n.limits.MemoryMiB, n.used.memory)
	}
	return true
}

func (s *Scheduler) describeNode(n *node) string {
	if n.parent == s.root {
		return "namespace " + n.name
	}
	return fmt.Sprintf("queue %s of namespace %s", n.name, n.queue.Namespace)
}

// explainReserved reports whether all workers that have room keep it for others.
func (s *Scheduler) explainReserved(e *Explanation, l *line, id job.ID, fitting []*cell) bool {
	for _, c := range fitting {
		if s.suits(c, l, id) {
			return false
		}
	}
	r := fitting[0].reserved
	e.Limit = "reservation"
	whose := "job " + r.job.String()
	if r.line.spec.Namespace != l.spec.Namespace {
		whose = "job of another namespace" // whose ids are of no concern here
	}
	e.Text = fmt.Sprintf("worker %s has room, which is kept for the more urgent %s; a job that may run for at most %v can go before it",
		fitting[0].worker.Name, whose, time.Duration(r.at-nanos(s.now)).Round(time.Second))
	e.Advice = "give it a shorter timeout"
	return true
}

// explainGang reports whether there is room for some of a gang, but not for all of it.
func (s *Scheduler) explainGang(e *Explanation, l *line) bool {
	taken, all := s.tryGang(l.gang)
	for _, r := range slices.Backward(taken) {
		s.End(r)
	}
	if all {
		return false
	}
	e.Text = fmt.Sprintf("there is room for %d of the %s of its gang %q, and all start together", len(taken), jobs(l.gang.waiting), l.gang.key.name)
	if r := s.reservationOf(l.waiting.first()); r != nil {
		e.Earliest = time.Unix(0, r.at)
	}
	return true
}

// ahead counts the jobs of the queue that are more urgent.
func (s *Scheduler) ahead(l *line, id job.ID) int {
	n := 0
	for _, g := range l.node.groups {
		for _, other := range append(g.lines.items[:len(g.lines.items):len(g.lines.items)], g.parked...) {
			n += other.moreUrgent(l, id)
		}
	}
	return n
}

// moreUrgent counts the jobs of a line that are more urgent than a job of another one; a job without an id is the newest.
func (l *line) moreUrgent(other *line, id job.ID) int {
	if id.IsZero() && l.node.queue.Ageing > 0 {
		return l.waiting.size
	}
	if id.IsZero() {
		if l.class.Priority >= other.class.Priority {
			return l.waiting.size
		}
		return 0
	}
	u, n := other.urgencyOf(id), 0
	for _, chunk := range l.waiting.chunks {
		lo, hi := 0, len(chunk)
		for lo < hi {
			if mid := (lo + hi) / 2; l.urgencyOf(chunk[mid]).compare(u) < 0 {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		n += lo
	}
	return n
}

// estimate says when the job may start.
func (s *Scheduler) estimate(e *Explanation, l *line, id job.ID) {
	if r := s.reservationOf(id); r != nil {
		e.Earliest = time.Unix(0, r.at)
		return
	}
	if !e.Earliest.IsZero() || e.Limit != "" {
		return
	}
	at := int64(math.MaxInt64)
	s.eligible(l.shape, func(c *cell) { at = min(at, c.earliest(&l.shape.ask, s.now)) })
	if at < math.MaxInt64 && at > nanos(s.now) {
		e.Earliest = time.Unix(0, at)
	}
}

// advise says what would let the job start.
func (s *Scheduler) advise(e *Explanation, l *line) string {
	if e.Fitting > 0 || e.Limit != "" {
		return ""
	}
	for _, c := range s.cells.all {
		if c == nil || !passes(ofFacts, l.shape, c) {
			continue
		}
		switch {
		case !connected(nil, c):
			return fmt.Sprintf("start the agent of worker %s again", c.worker.Name)
		case !accepting(nil, c):
			return fmt.Sprintf("`hodei worker drain %s --resume`", c.worker.Name)
		}
		return ""
	}
	var labels []string
	for i := range l.shape.constraints {
		labels = append(labels, l.shape.constraints[i].String())
	}
	text := "connect a worker with " + describe(l.shape.resources)
	if len(labels) > 0 {
		text += " and the labels " + strings.Join(labels, ", ")
	}
	if e.Filters[0].Filter == scopeFilter {
		text += fmt.Sprintf(", for all queues or for %s/%s", l.class.Namespace, l.class.Queue)
	}
	return text
}

func jobs(n int) string {
	if n == 1 {
		return "1 job"
	}
	return fmt.Sprintf("%d jobs", n)
}

func areOrIs(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func runOrRuns(n int) string {
	if n == 1 {
		return "runs"
	}
	return "run"
}
