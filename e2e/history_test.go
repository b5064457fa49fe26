package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/anishathalye/porcupine"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/store/pgstore/pgtest"
)

const (
	// historyTime is how long the clients are busy; the variable of that name has seconds for a longer run.
	historyTime     = 10 * time.Second
	historyVariable = "HODEI_HISTORY_SECONDS"
	historyClients  = 6
	// callTime is after how long a client gives a call up, which may have its effect all the same.
	callTime = 5 * time.Second
)

// seed returns what SEED says, or one of its own, which it logs.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", n)
	return n
}

// errand is a job that the clients share: the request that makes it, and its id once somebody was told.
type errand struct {
	request     string
	maxAttempts int32
	spec        *hodeiv1.JobSpec
	id          string
}

// historian writes down what the clients do and learn.
type historian struct {
	starts string // the file into which attempts write that they run

	mu      sync.Mutex
	errands []*errand
	history []porcupine.Operation
}

// record does a call and writes it down. When nobody knows what became of it, its effect may come at any time later.
func (h *historian) record(client int, c call, do func() (*hodeiv1.Job, error)) {
	begin := time.Now().UnixNano()
	job, err := do()
	o := porcupine.Operation{ClientId: client, Input: c, Call: begin, Return: time.Now().UnixNano()}
	a := answer{id: job.GetId(), state: job.GetState(), attempt: job.GetAttempt()}
	switch code := refusal(err); {
	case err == nil:
	case code == connect.CodeNotFound:
		a.verdict = notFound
	case code == connect.CodeFailedPrecondition && c.action == canceling:
		a.verdict = hasEnded
	case c.action == getting:
		return // a question without an answer changes nothing
	default:
		a.verdict, o.Return = unknown, math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.errands {
		if e.request == c.request && a.verdict == answered {
			e.id = a.id
		} else if e.request == c.request && a.verdict == hasEnded {
			a.id = e.id
		}
	}
	o.Output = a
	h.history = append(h.history, o)
}

// pick returns an errand that was begun before, and its id when there is one.
func (h *historian) pick(random *rand.Rand) (*errand, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.errands) == 0 {
		return nil, ""
	}
	e := h.errands[len(h.errands)-1-random.IntN(min(len(h.errands), 40))] // of the young ones, where something happens
	return e, e.id
}

func (h *historian) begin(random *rand.Rand) *errand {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := &errand{request: fmt.Sprintf("request-%d", len(h.errands)), maxAttempts: 1 + int32(random.IntN(3))}
	e.spec = shellJob(`echo "$1 $HODEI_ATTEMPT $(date +%s%N)" >> "$0"; sleep $2; exit $3`,
		h.starts, e.request, fmt.Sprintf("0.%d", random.IntN(4)), strconv.Itoa(random.IntN(2)))
	e.spec.MaxAttempts = e.maxAttempts
	h.errands = append(h.errands, e)
	return e
}

// client does something again and again until the context ends.
func (h *historian) client(ctx context.Context, n int, c *hodei.Client, random *rand.Rand) {
	for ctx.Err() == nil {
		e, id := h.pick(random)
		switch dice := random.IntN(100); {
		case e == nil, dice < 20:
			h.submit(n, c, h.begin(random))
		case dice < 30 || id == "":
			h.submit(n, c, e) // again, whether it was answered or not
		case dice < 36:
			h.cancel(n, c, e, id, random.IntN(4) == 0)
		default:
			h.get(n, c, e, id)
		}
		select {
		case <-time.After(time.Duration(random.IntN(40)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (h *historian) submit(n int, c *hodei.Client, e *errand) {
	h.record(n, call{action: submitting, request: e.request, maxAttempts: e.maxAttempts}, func() (*hodeiv1.Job, error) {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		res, err := c.Raw.Jobs.SubmitJob(ctx, &hodeiv1.SubmitJobRequest{RequestId: e.request, Spec: e.spec})
		return res.GetJob(), err
	})
}

func (h *historian) get(n int, c *hodei.Client, e *errand, id string) {
	h.record(n, call{action: getting, request: e.request, maxAttempts: e.maxAttempts}, func() (*hodeiv1.Job, error) {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		res, err := c.Raw.Jobs.GetJob(ctx, &hodeiv1.GetJobRequest{Id: id})
		return res.GetJob(), err
	})
}

func (h *historian) cancel(n int, c *hodei.Client, e *errand, id string, force bool) {
	h.record(n, call{action: canceling, request: e.request, maxAttempts: e.maxAttempts}, func() (*hodeiv1.Job, error) {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		res, err := c.Raw.Jobs.CancelJob(ctx, &hodeiv1.CancelJobRequest{Id: id, Force: force})
		return res.GetJob(), err
	})
}

// addStarts adds what the jobs themselves wrote: an attempt ran at some time between the job's first submit and its line.
func (h *historian) addStarts(t *testing.T) (starts int) {
	t.Helper()
	data, err := os.ReadFile(h.starts)
	if err != nil {
		t.Fatal(err)
	}
	first := make(map[string]int64)
	maxAttempts := make(map[string]int32)
	for _, e := range h.errands {
		maxAttempts[e.request] = e.maxAttempts
	}
	for _, o := range h.history {
		if c := o.Input.(call); first[c.request] == 0 || o.Call < first[c.request] {
			first[c.request] = o.Call
		}
	}
	for line := range bytes.Lines(data) {
		var request string
		var attempt int32
		var at int64
		if _, err := fmt.Sscanf(string(line), "%s %d %d\n", &request, &attempt, &at); err != nil {
			t.Fatalf("a job wrote %q: %v", line, err)
		}
		c := call{action: starting, request: request, maxAttempts: maxAttempts[request], attempt: attempt}
		h.history = append(h.history, porcupine.Operation{ClientId: historyClients, Input: c, Output: answer{}, Call: first[request], Return: at})
		starts++
	}
	return starts
}

// faults are what may be broken, one after the other.
type faults struct {
	world    *world
	proxy    *proxy
	agents   []*daemon
	database *pgtest.Server // nil: none
	deck     []string
}

// Clients submit, repeat, look at and cancel jobs through connections that are cut, while the server and the agents are
// killed and started again. Whatever they were told must be possible: for every job there is an order of its operations, within
// their times, that a single job without any faults could have gone through. SEED repeats the choices of a run.
func TestHistoriesOfJobsAreLinearizable(t *testing.T) {
	t.Parallel()
	checkHistories(t, &faults{world: newWorld(t), deck: []string{"cut", "server", "agent", "cut", "server", "cut"}})
}

// The same with jobs in a database, which is killed too.
func TestHistoriesOfJobsInPostgresAreLinearizable(t *testing.T) {
	t.Parallel()
	f := &faults{database: startOwnPostgres(t), deck: []string{"database", "server", "cut", "agent"}}
	f.world = newWorld(t, "--store", newDatabase(t, f.database))
	checkHistories(t, f)
}

func checkHistories(t *testing.T, f *faults) {
	t.Helper()
	duration := historyTime
	if text := os.Getenv(historyVariable); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		duration = time.Duration(seconds) * time.Second
	}
	start := seed(t)
	w := f.world
	h := &historian{starts: filepath.Join(t.TempDir(), "starts")}
	if err := os.WriteFile(h.starts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.proxy = newProxy(t, strings.TrimPrefix(w.url, "https://"))
	f.agents = []*daemon{w.agent("w1"), w.agent("w2")}
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var clients sync.WaitGroup
	for n := range historyClients {
		c := w.client("https://" + f.proxy.listener.Addr().String())
		clients.Go(func() { h.client(ctx, n, c, rand.New(rand.NewPCG(start, uint64(n+1)))) })
	}
	done := f.harm(ctx, t, rand.New(rand.NewPCG(start, 0)))
	clients.Wait()
	h.finish(t, w)
	starts := h.addStarts(t)
	verdicts := make(map[verdict]int)
	for _, o := range h.history {
		verdicts[o.Output.(answer).verdict]++
	}
	t.Logf("%d jobs, %d operations, %d of them without an answer, %d attempts; faults: %v",
		len(h.errands), len(h.history), verdicts[unknown], starts, done)
	for _, wrong := range checkLives(h.history) {
		t.Error(wrong)
	}
	if starts == 0 || verdicts[unknown] == 0 || len(done) < 3 {
		t.Error("the run proves little: no job ran, no reply was lost or a fault is missing")
	}
}

// harm kills and cuts until the context ends, and counts what it did.
func (f *faults) harm(ctx context.Context, t *testing.T, random *rand.Rand) map[string]int {
	t.Helper()
	done := make(map[string]int)
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Duration(200+random.IntN(900)) * time.Millisecond):
		case <-ctx.Done():
			return done
		}
		fault := f.deck[n%len(f.deck)]
		done[fault]++
		switch fault {
		case "cut":
			f.proxy.cut()
		case "server":
			f.world.server.kill()
			f.world.restart()
		case "agent":
			i := random.IntN(len(f.agents))
			f.agents[i].kill()
			f.agents[i] = startDaemon(t, nil, "hodei-agent", f.agents[i].cmd.Args[1:]...)
		case "database":
			if err := f.database.Crash(); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Duration(random.IntN(500)) * time.Millisecond)
			if err := f.database.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// finish waits until nothing is under way any more, and has every job looked at a last time: what was acknowledged must be
// there, and must have ended. What was never acknowledged is submitted again, so that its id is known too.
func (h *historian) finish(t *testing.T, w *world) {
	t.Helper()
	c := w.client(w.url)
	const last = historyClients + 1
	for _, e := range h.errands {
		if e.id == "" {
			h.submit(last, c, e)
		}
	}
	waiting := make(map[string]bool)
	await(t, "all jobs to end", func() bool {
		clear(waiting)
		for job, err := range c.List(t.Context(), &hodeiv1.JobFilter{}, 1000) {
			if err != nil {
				t.Fatal(err)
			}
			if !terminal(job.GetState()) {
				waiting[job.GetId()] = true
			}
		}
		return len(waiting) == 0
	})
	ids := make(map[string]bool)
	for _, e := range h.errands {
		ids[e.id] = true
		h.get(last, c, e, e.id)
	}
	if ids[""] || len(ids) != len(h.errands) {
		t.Errorf("%d requests made %d jobs: %v", len(h.errands), len(ids), slices.Sorted(maps.Keys(ids)))
	}
}
