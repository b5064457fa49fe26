package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// silent is a dispatcher, and metrics, that nobody hears.
type silent struct{}

func (silent) Assign(job.WorkerID, []orchestrator.Assignment) {}
func (silent) Cancel(job.WorkerID, job.AttemptRef, int, bool) {}
func (silent) JobsSubmitted(int)                              {}
func (silent) JobsScheduled(int)                              {}
func (silent) JobsEnded(string, string, int)                  {}
func (silent) StaleReports(int)                               {}
func (silent) MeasurementsIgnored(int)                        {}
func (silent) Commit(time.Duration, int)                      {}

// served is the services of jobs and queues over HTTP, on a store in memory. Who may call what is another test's business.
type served struct {
	orchestrator *orchestrator.Orchestrator
	jobs         hodeiv1connect.JobServiceClient
	queues       hodeiv1connect.QueueServiceClient
}

func serve(t *testing.T) *served {
	t.Helper()
	w := newWorld(t)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, w.public)
	listener := httptest.NewServer(mux)
	t.Cleanup(listener.Close)
	token := w.token(t, identity.Administrator)
	client := connect.NewClient(connecthttp.NewTransport(listener.Client(), listener.URL), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+token)
			return next(ctx, spec)
		}
	})
	return &served{w.config.Jobs, hodeiv1connect.NewJobServiceClient(client), hodeiv1connect.NewQueueServiceClient(client)}
}

func (s *served) connect(t *testing.T, name string, edit func(*job.Worker)) {
	t.Helper()
	w := job.Worker{
		ID: job.WorkerID("wkr_" + name), Name: name, Slots: 4, Session: 1, Labels: map[string]string{"os": "linux"},
		Capacity: job.Resources{MilliCPU: 4000, MemoryMiB: 4000, Extras: map[string]int32{"gpu": 1}},
	}
	if edit != nil {
		edit(&w)
	}
	if _, err := s.orchestrator.Connect(t.Context(), w, nil, false); err != nil {
		t.Fatal(err)
	}
}

func (s *served) submit(t *testing.T, edit func(*hodeiv1.JobSpec)) string {
	t.Helper()
	res, err := s.jobs.SubmitJob(t.Context(), &hodeiv1.SubmitJobRequest{Spec: newSpec(edit)})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetJob().GetId()
}

func newSpec(edit func(*hodeiv1.JobSpec)) *hodeiv1.JobSpec {
	spec := &hodeiv1.JobSpec{Steps: []*hodeiv1.Step{{Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: []string{"true"}}}}}}
	if edit != nil {
		edit(spec)
	}
	return spec
}

// refused checks the code of an error and a part of its text.
func refused(t *testing.T, what string, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s gave %v; want %s and %q", what, err, code, text)
	}
}

func TestSettingsSurviveTheWayThroughTheAPI(t *testing.T) {
	t.Parallel()
	q := job.Queue{
		Namespace: "ns", Name: "q", Parent: "p", Weight: 3, Band: -2, Limits: job.Limits{Running: 1, MilliCPU: 2, MemoryMiB: 3, StartsPerMinute: 4},
		Paused: true, Ageing: time.Minute, Scoring: job.Scoring{Spread: true, Load: 5, Affinity: 6, Price: 7},
		Preempts: true, Preemptible: true, AwaitsWorkers: true,
	}
	status := orchestrator.QueueStatus{Queue: q, Set: true, Standing: scheduler.Standing{Waiting: 8, Running: 9, Held: job.Resources{MilliCPU: 10}, Share: 0.5, Due: 0.25}}
	p := queueToProto(&status)
	if got := queueFromProto(p); !reflect.DeepEqual(got, q) {
		t.Errorf("got  %+v\nwant %+v", got, q)
	}
	if p.GetWaiting() != 8 || p.GetRunning() != 9 || p.GetHeld().GetMilliCpu() != 10 || p.GetShare() != 0.5 || p.GetDue() != 0.25 || !p.GetCustomized() {
		t.Errorf("the standing is %v", p)
	}
	// What is 0 and has another default stays 0.
	q.Ageing, q.Scoring, q.Weight = 0, job.Scoring{}, 1
	if got := queueFromProto(queueToProto(&orchestrator.QueueStatus{Queue: q})); !reflect.DeepEqual(got, q) {
		t.Errorf("got  %+v\nwant %+v", got, q)
	}
	// What is not set has its default.
	for _, empty := range []*hodeiv1.Queue{{Name: "q"}, {Name: "q", Scoring: &hodeiv1.Scoring{}, Limits: &hodeiv1.Limits{}}} {
		if got := queueFromProto(empty); got != job.DefaultQueueSettings("default", "q") {
			t.Errorf("the defaults are %+v", got)
		}
	}
	n := job.Namespace{Name: "n", Weight: 4, Limits: job.Limits{Running: 5}, DefaultQueue: "q"}
	if got := namespaceFromProto(namespaceToProto(&orchestrator.NamespaceStatus{Namespace: n})); got != n {
		t.Errorf("got %+v, want %+v", got, n)
	}
	if got := namespaceFromProto(&hodeiv1.Namespace{Name: "n"}); got != job.DefaultNamespaceSettings("n") {
		t.Errorf("the defaults are %+v", got)
	}
	if queueFromProto(nil).Name != "" || namespaceFromProto(nil).Name != "" {
		t.Error("nothing has a name")
	}
}

func TestQueuesAreSetPausedAndDeleted(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	got, err := s.queues.GetQueue(ctx, &hodeiv1.GetQueueRequest{Name: "nightly"})
	if err != nil || got.GetQueue().GetWeight() != 1 || got.GetQueue().GetNamespace() != "default" || got.GetQueue().GetCustomized() {
		t.Fatalf("a queue that nobody has set is %v, %v", got, err)
	}
	set, err := s.queues.SetQueue(ctx, &hodeiv1.SetQueueRequest{Queue: &hodeiv1.Queue{
		Name: "nightly", Weight: proto.Int32(5), Ageing: durationpb.New(0), Limits: &hodeiv1.Limits{Running: 2}, Waiting: 99, Share: 0.9,
	}})
	if q := set.GetQueue(); err != nil || q.GetWeight() != 5 || q.GetAgeing().AsDuration() != 0 || q.GetLimits().GetRunning() != 2 ||
		q.GetScoring().GetLoad() != 200 || q.GetWaiting() != 0 || q.GetShare() != 0 || !q.GetCustomized() {
		t.Fatalf("the queue became %v, %v", set, err)
	}
	child := &hodeiv1.Queue{Name: "builds", Parent: "nightly"}
	if _, err := s.queues.SetQueue(ctx, &hodeiv1.SetQueueRequest{Queue: child}); err != nil {
		t.Fatal(err)
	}
	for what, q := range map[string]*hodeiv1.Queue{
		`parent: queue "nightly" would be under itself`: {Name: "nightly", Parent: "builds"},
		`is to be under "gone", which is not there`:     {Name: "x", Parent: "gone"},
		"weight: 0; it must be from 1 to 1000000":       {Name: "x", Weight: proto.Int32(0)},
		"band: 1001":          {Name: "x", Band: 1001},
		`name: ""`:            nil,
		`name: "A"`:           {Name: "A"},
		"ageing: -1s":         {Name: "x", Ageing: durationpb.New(-time.Second)},
		"limits: none may":    {Name: "x", Limits: &hodeiv1.Limits{MilliCpu: -1}},
		"scoring: weights":    {Name: "x", Scoring: &hodeiv1.Scoring{Price: proto.Int32(-1)}},
		`parent: queue "x" c`: {Name: "x", Parent: "x"},
	} {
		_, err := s.queues.SetQueue(ctx, &hodeiv1.SetQueueRequest{Queue: q})
		refused(t, what, err, connect.CodeInvalidArgument, what)
	}
	paused, err := s.queues.PauseQueue(ctx, &hodeiv1.PauseQueueRequest{Name: "nightly"})
	if err != nil || !paused.GetQueue().GetPaused() || paused.GetQueue().GetWeight() != 5 {
		t.Errorf("the paused queue is %v, %v", paused, err)
	}
	resumed, err := s.queues.ResumeQueue(ctx, &hodeiv1.ResumeQueueRequest{Name: "nightly"})
	if err != nil || resumed.GetQueue().GetPaused() {
		t.Errorf("the resumed queue is %v, %v", resumed, err)
	}
	_, err = s.queues.PauseQueue(ctx, &hodeiv1.PauseQueueRequest{Name: "No"})
	refused(t, "pausing what cannot be", err, connect.CodeInvalidArgument, "name")
	_, err = s.queues.DeleteQueue(ctx, &hodeiv1.DeleteQueueRequest{Name: "nightly"})
	refused(t, "deleting a parent", err, connect.CodeFailedPrecondition, "builds")
	for _, name := range []string{"builds", "nightly"} {
		if _, err := s.queues.DeleteQueue(ctx, &hodeiv1.DeleteQueueRequest{Name: name}); err != nil {
			t.Error(err)
		}
	}
	_, err = s.queues.DeleteQueue(ctx, &hodeiv1.DeleteQueueRequest{Name: "nightly"})
	refused(t, "deleting it again", err, connect.CodeNotFound, "nightly")
	if got, err = s.queues.GetQueue(ctx, &hodeiv1.GetQueueRequest{Name: "nightly"}); err != nil || got.GetQueue().GetWeight() != 1 || got.GetQueue().GetCustomized() {
		t.Errorf("the deleted queue is %v, %v", got, err)
	}
}

func TestQueuesAreListedByPages(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	var want []string
	for _, namespace := range []string{"a", "default"} {
		for i := range 5 {
			name := fmt.Sprintf("q%d", i)
			if _, err := s.queues.SetQueue(ctx, &hodeiv1.SetQueueRequest{Queue: &hodeiv1.Queue{Namespace: namespace, Name: name}}); err != nil {
				t.Fatal(err)
			}
			want = append(want, namespace+"/"+name)
		}
	}
	s.submit(t, func(spec *hodeiv1.JobSpec) { spec.Queue = "unset" })
	want = append(want, "default/unset")
	list := func(namespace string, size int32) (names []string) {
		req := &hodeiv1.ListQueuesRequest{Namespace: namespace, PageSize: size}
		for {
			res, err := s.queues.ListQueues(ctx, req)
			if err != nil || len(res.GetQueues()) == 0 || size > 0 && len(res.GetQueues()) > int(size) {
				t.Fatalf("a page is %v, %v", res, err)
			}
			for _, q := range res.GetQueues() {
				names = append(names, q.GetNamespace()+"/"+q.GetName())
			}
			if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
				return names
			}
		}
	}
	for _, size := range []int32{0, 1, 3, 11, 1000} {
		if got := list("*", size); !reflect.DeepEqual(got, want) {
			t.Errorf("in pages of %d: %v, want %v", size, got, want)
		}
		if got := list("", size); !reflect.DeepEqual(got, want[5:]) {
			t.Errorf("the default namespace in pages of %d: %v, want %v", size, got, want[5:])
		}
	}
	_, err := s.queues.ListQueues(ctx, &hodeiv1.ListQueuesRequest{PageToken: "***"})
	refused(t, "a token of nobody", err, connect.CodeInvalidArgument, "page_token")
	_, err = s.queues.ListQueues(ctx, &hodeiv1.ListQueuesRequest{PageSize: 1001})
	refused(t, "too large a page", err, connect.CodeInvalidArgument, "page_size")
}

func TestNamespacesAreSetListedAndDeleted(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	set, err := s.queues.SetNamespace(ctx, &hodeiv1.SetNamespaceRequest{Namespace: &hodeiv1.Namespace{
		Name: "research", Weight: proto.Int32(3), Limits: &hodeiv1.Limits{MilliCpu: 64_000},
	}})
	if n := set.GetNamespace(); err != nil || n.GetWeight() != 3 || n.GetLimits().GetMilliCpu() != 64_000 || !n.GetCustomized() {
		t.Fatalf("the namespace became %v, %v", set, err)
	}
	for want, n := range map[string]*hodeiv1.Namespace{
		`namespace: ""`: nil, "weight: 0": {Name: "x", Weight: proto.Int32(0)}, "limits: none": {Name: "x", Limits: &hodeiv1.Limits{Running: -1}},
	} {
		_, err := s.queues.SetNamespace(ctx, &hodeiv1.SetNamespaceRequest{Namespace: n})
		refused(t, want, err, connect.CodeInvalidArgument, want)
	}
	s.connect(t, "w", nil)
	s.submit(t, func(spec *hodeiv1.JobSpec) {
		spec.Namespace, spec.Resources = "web", &hodeiv1.Resources{MilliCpu: 1000, Extras: map[string]int32{"gpu": 1}}
	})
	s.submit(t, func(spec *hodeiv1.JobSpec) {
		spec.Namespace, spec.Resources = "web", &hodeiv1.Resources{Extras: map[string]int32{"gpu": 1}}
	})
	list, err := s.queues.ListNamespaces(ctx, &hodeiv1.ListNamespacesRequest{PageSize: 1})
	if err != nil || len(list.GetNamespaces()) != 1 || list.GetNamespaces()[0].GetName() != "research" || list.GetNextPageToken() == "" {
		t.Fatalf("the first page is %v, %v", list, err)
	}
	list, err = s.queues.ListNamespaces(ctx, &hodeiv1.ListNamespacesRequest{PageToken: list.GetNextPageToken()})
	if err != nil || len(list.GetNamespaces()) != 1 || list.GetNextPageToken() != "" {
		t.Fatalf("the last page is %v, %v", list, err)
	}
	if n := list.GetNamespaces()[0]; n.GetName() != "web" || n.GetWaiting() != 1 || n.GetRunning() != 1 || n.GetHeld().GetMilliCpu() != 1000 ||
		n.GetHeld().GetExtras()["gpu"] != 1 || n.GetShare() != 1 || n.GetDue() != 1 || n.GetCustomized() {
		t.Errorf("the namespace of the jobs is %v", n)
	}
	if _, err := s.queues.DeleteNamespace(ctx, &hodeiv1.DeleteNamespaceRequest{Name: "research"}); err != nil {
		t.Error(err)
	}
	_, err = s.queues.DeleteNamespace(ctx, &hodeiv1.DeleteNamespaceRequest{Name: "research"})
	refused(t, "deleting it again", err, connect.CodeNotFound, "research")
	_, err = s.queues.DeleteNamespace(ctx, &hodeiv1.DeleteNamespaceRequest{})
	refused(t, "deleting nothing", err, connect.CodeInvalidArgument, "name")
}

func TestWaitingIsExplained(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	explain := func(id string) *hodeiv1.ExplainJobResponse {
		t.Helper()
		res, err := s.jobs.ExplainJob(ctx, &hodeiv1.ExplainJobRequest{Subject: &hodeiv1.ExplainJobRequest_Id{Id: id}})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	s.connect(t, "small", func(w *job.Worker) { w.Capacity.MilliCPU = 500 })
	s.connect(t, "tainted", func(w *job.Worker) { w.Taints = []string{"batch"} })
	s.connect(t, "mac", func(w *job.Worker) { w.Labels = map[string]string{"os": "mac"} })
	id := s.submit(t, func(spec *hodeiv1.JobSpec) {
		spec.Resources = &hodeiv1.Resources{MilliCpu: 1000}
		spec.Constraints = []*hodeiv1.Constraint{{Label: "os", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_IN, Values: []string{"linux"}}}
	})
	got := explain(id)
	counts := map[string]int32{}
	for _, f := range got.GetFilters() {
		counts[f.GetFilter()] = f.GetWorkers()
	}
	if !reflect.DeepEqual(counts, map[string]int32{"constraints": 1, "taints": 1, "size": 1}) || got.GetWorkers() != 3 || got.GetFitting() != 0 ||
		got.GetState() != hodeiv1.JobState_JOB_STATE_QUEUED || !strings.Contains(got.GetText(), "tolerate batch") || got.GetAdvice() == "" {
		t.Errorf("the explanation is %v", got)
	}
	// A job that does not wait for a worker says how it stands.
	running := s.submit(t, nil)
	if got := explain(running); !strings.Contains(got.GetText(), "it is ASSIGNED on worker wkr_") || len(got.GetFilters()) != 0 {
		t.Errorf("the explanation of a job on a worker is %v", got)
	}
	later := s.submit(t, func(spec *hodeiv1.JobSpec) { spec.RunAfter = timestamppb.New(time.Now().Add(time.Hour)) })
	if got := explain(later); !strings.Contains(got.GetText(), "to start no earlier than 20") || got.GetState() != hodeiv1.JobState_JOB_STATE_DELAYED {
		t.Errorf("the explanation of a job for later is %v", got)
	}
	if _, err := s.jobs.CancelJob(ctx, &hodeiv1.CancelJobRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	if got := explain(id); got.GetText() != "it has ended: it is CANCELED" {
		t.Errorf("the explanation of a job that has ended is %v", got)
	}
	_, err := s.jobs.ExplainJob(ctx, &hodeiv1.ExplainJobRequest{Subject: &hodeiv1.ExplainJobRequest_Id{Id: job.ID{7}.String()}})
	refused(t, "a job that is not there", err, connect.CodeNotFound, "job_")
	_, err = s.jobs.ExplainJob(ctx, &hodeiv1.ExplainJobRequest{Subject: &hodeiv1.ExplainJobRequest_Id{Id: "x"}})
	refused(t, "no id", err, connect.CodeNotFound, "no job")
	_, err = s.jobs.ExplainJob(ctx, &hodeiv1.ExplainJobRequest{})
	refused(t, "nothing", err, connect.CodeInvalidArgument, "subject")
	_, err = s.jobs.ReleaseJob(ctx, &hodeiv1.ReleaseJobRequest{Id: running})
	refused(t, "releasing a job that is not held", err, connect.CodeFailedPrecondition, "not held")
}

func TestSpecsAreExplainedWithoutBeingSubmitted(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	explain := func(edit func(*hodeiv1.JobSpec)) (*hodeiv1.ExplainJobResponse, error) {
		return s.jobs.ExplainJob(ctx, &hodeiv1.ExplainJobRequest{Subject: &hodeiv1.ExplainJobRequest_Spec{Spec: newSpec(edit)}})
	}
	if got, err := explain(nil); err != nil || !strings.Contains(got.GetText(), "no worker has ever connected") {
		t.Errorf("without workers: %v, %v", got, err)
	}
	s.connect(t, "w", nil)
	if got, err := explain(nil); err != nil || got.GetText() != "nothing keeps it: it would start when it is submitted" || got.GetFitting() != 1 {
		t.Errorf("what could start: %v, %v", got, err)
	}
	if _, err := s.queues.PauseQueue(ctx, &hodeiv1.PauseQueueRequest{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	got, err := explain(func(spec *hodeiv1.JobSpec) { spec.Queue = "q" })
	if err != nil || got.GetLimit() != "paused" || !strings.Contains(got.GetText(), "is paused") || !strings.Contains(got.GetAdvice(), "hodei queue resume q") {
		t.Errorf("in a paused queue: %v, %v", got, err)
	}
	got, err = explain(func(spec *hodeiv1.JobSpec) { spec.Resources = &hodeiv1.Resources{Extras: map[string]int32{"fpga": 1}} })
	if err != nil || got.GetFitting() != 0 || !strings.Contains(got.GetText(), "needs 1 fpga, and the largest worker has 0 fpga") {
		t.Errorf("what no worker has: %v, %v", got, err)
	}
	_, err = explain(func(spec *hodeiv1.JobSpec) { spec.Gang = &hodeiv1.Gang{} })
	refused(t, "a spec that is wrong", err, connect.CodeInvalidArgument, "gang")
	list, err := s.jobs.ListJobs(ctx, &hodeiv1.ListJobsRequest{})
	if err != nil || len(list.GetJobs()) != 0 {
		t.Errorf("something was submitted: %v, %v", list, err)
	}
}

func TestJobsComeBackWithTheirPlacement(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	want := newSpec(func(spec *hodeiv1.JobSpec) {
		spec.Affinities = []*hodeiv1.Affinity{{
			Constraint: &hodeiv1.Constraint{Label: "mem", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_GREATER, Values: []string{"16"}}, Weight: -5,
		}}
		spec.Spread, spec.Apart, spec.Tolerations = "zone", "hostname", []string{"batch"}
		spec.Concurrency, spec.Gang = &hodeiv1.Concurrency{Key: "k"}, &hodeiv1.Gang{Name: "g", Size: 2}
	})
	id := s.submit(t, func(spec *hodeiv1.JobSpec) { proto.Merge(spec, want); spec.Steps = spec.Steps[:1] })
	res, err := s.jobs.GetJob(ctx, &hodeiv1.GetJobRequest{Id: id})
	got := res.GetJob().GetSpec()
	want.Concurrency = &hodeiv1.Concurrency{Key: "k", Limit: 1, Policy: hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_QUEUE}
	if err != nil || len(got.GetAffinities()) != 1 || !proto.Equal(got.GetAffinities()[0], want.GetAffinities()[0]) || got.GetSpread() != "zone" ||
		got.GetApart() != "hostname" || got.GetTolerations()[0] != "batch" || !proto.Equal(got.GetConcurrency(), want.GetConcurrency()) ||
		!proto.Equal(got.GetGang(), want.GetGang()) {
		t.Errorf("got %v, %v", got, err)
	}
}
