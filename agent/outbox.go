package agent

import (
	"context"
	"crypto/rand"
	"runtime"
	"slices"
	"strings"
	"sync"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// newBootID names this life of the agent.
func newBootID() string { return strings.ToLower(rand.Text()[:12]) }

// outbox holds what the server has not acknowledged, in order. A new session sends all of it again.
//
// A report says everything about its attempt. Attempts that have news wait in line; when their turn comes, a report is made
// of how they stand then, so that what happens quickly is told once. The end of an attempt is in the journal before it is
// sent.
type outbox struct {
	journal *journal
	signal  func()
	failed  func(error) // the journal takes nothing
	stir    chan struct{}

	mu       sync.Mutex
	news     []*attempt
	reports  []sentReport
	sent     int  // how many of reports this session has sent
	draining bool // the server must be told
	told     bool // it was, in this session
}

type sentReport struct {
	attempt *attempt
	message *hwpv1.AttemptReport
}

func newOutbox(j *journal, signal func(), failed func(error)) *outbox {
	return &outbox{journal: j, signal: signal, failed: failed, stir: make(chan struct{}, 1)}
}

// add puts an attempt that has news in line.
func (o *outbox) add(t *attempt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !t.hasNews {
		t.hasNews = true
		o.news = append(o.news, t)
		select {
		case o.stir <- struct{}{}:
		default:
		}
	}
}

// run makes reports of news until the context ends. While there is much news it lets some gather: a short job is then told
// of once, when it has ended.
func (o *outbox) run(ctx context.Context) {
	pace := pace{every: reportTime}
	for {
		select {
		case <-o.stir:
		case <-ctx.Done():
			return
		}
		runtime.Gosched() // others that are about to have news go first, so that one block serves them all
		if o.collect() < frameMessages {
			pace.gather(ctx)
		}
	}
}

// collect makes reports of all news, and returns how many.
func (o *outbox) collect() int {
	o.mu.Lock()
	news := o.news
	o.news = nil
	for _, t := range news {
		t.hasNews = false // what happens from here on is news again
	}
	o.mu.Unlock()
	reports := make([]sentReport, len(news))
	var ended []*hwpv1.AttemptReport
	for i, t := range news {
		reports[i] = sentReport{t, t.report()}
		if reports[i].message.GetEndTime() != 0 {
			ended = append(ended, reports[i].message)
		}
	}
	if len(ended) > 0 {
		if err := o.journal.end(ended); err != nil {
			o.failed(err)
		}
	}
	o.mu.Lock()
	o.reports = append(o.reports, reports...)
	o.mu.Unlock()
	o.signal()
	return len(reports)
}

// begin starts over: nothing was sent in the new session.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent, o.told = 0, false
	o.reports = slices.DeleteFunc(o.reports, sentReport.unknown)
}

// next returns what is to be sent, at most limit reports.
func (o *outbox) next(limit int) ([]*hwpv1.AttemptReport, []*hwpv1.AgentMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(limit, len(o.reports)-o.sent)
	var reports []*hwpv1.AttemptReport
	if n > 0 {
		reports = make([]*hwpv1.AttemptReport, n)
		for i := range reports {
			reports[i] = o.reports[o.sent+i].message
		}
		o.sent += n
	}
	if !o.draining || o.told {
		return reports, nil
	}
	o.told = true
	return reports, []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Drain{Drain: &hwpv1.Drain{}}}}
}

// drain makes sure that the server knows that no more jobs are wanted.
func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.draining = true
	o.signal()
}

// acknowledge forgets the oldest n reports of those that were sent, and returns the attempts whose end was among them.
func (o *outbox) acknowledge(n int) []*attempt {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = min(n, o.sent)
	var ended []*attempt
	for _, r := range o.reports[:n] {
		if r.message.GetEndTime() != 0 {
			ended = append(ended, r.attempt)
		}
	}
	clear(o.reports[:n])
	o.reports = o.reports[n:]
	if len(o.reports) == 0 {
		o.reports = nil
	}
	o.sent -= n
	return ended
}

// forget drops the reports about an attempt that the server does not know. Those that were sent stay until the server has
// counted them.
func (o *outbox) forget(t *attempt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t.unknown = true
	o.reports = append(o.reports[:o.sent], slices.DeleteFunc(o.reports[o.sent:], sentReport.unknown)...)
}

func (r sentReport) unknown() bool { return r.attempt.unknown }
