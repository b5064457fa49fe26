package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// methods are all RPCs of this module.
func methods(t *testing.T) []protoreflect.MethodDescriptor {
	t.Helper()
	var all []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if name := string(f.Package()); strings.HasPrefix(name, "hodei.") || strings.HasPrefix(name, "hwp.") {
			for i := range f.Services().Len() {
				for k := range f.Services().Get(i).Methods().Len() {
					all = append(all, f.Services().Get(i).Methods().Get(k))
				}
			}
		}
		return true
	})
	if len(all) < 13 {
		t.Fatalf("only %d methods were found", len(all))
	}
	return all
}

func TestMethodWithoutARuleIsRefused(t *testing.T) {
	t.Parallel()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("x.proto"), MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("R"), InputType: proto.String(".M"), OutputType: proto.String(".M")},
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]connect.Spec{
		"no option":     {Procedure: "/x", Schema: file.Services().Get(0).Methods().Get(0)},
		"no descriptor": {Procedure: "/x"},
	} {
		if _, err := ruleOf(spec); job.CodeOf(err) != job.CodeDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The domain's numbers are the API's, so converting is a cast.
func TestEnumsAgree(t *testing.T) {
	t.Parallel()
	for number, name := range hodeiv1.JobState_name {
		if want := "JOB_STATE_" + job.State(number).String(); name != want {
			t.Errorf("%d is %s in the API and %s in the domain", number, name, want)
		}
	}
	for number, name := range hodeiv1.StepState_name {
		if want := "STEP_STATE_" + job.StepState(number).String(); name != want {
			t.Errorf("%d is %s in the API and %s in the domain", number, name, want)
		}
	}
	for number, name := range hodeiv1.CauseKind_name {
		if want := "CAUSE_KIND_" + strings.ToUpper(job.CauseKind(number).String()); name != want {
			t.Errorf("%d is %s in the API and %s in the domain", number, name, want)
		}
	}
	pairs := map[fmt.Stringer]any{
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_IN:           job.OperatorIn,
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_NOT_IN:       job.OperatorNotIn,
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_EXISTS:       job.OperatorExists,
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_NOT_EXISTS:   job.OperatorNotExists,
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_LESS:         job.OperatorLess,
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_GREATER:      job.OperatorGreater,
		hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_VERSION:      job.OperatorVersion,
		hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_QUEUE:          job.ConcurrencyQueue,
		hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_LATEST:         job.ConcurrencyLatest,
		hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_CANCEL_RUNNING: job.ConcurrencyCancelRunning,
		hodeiv1.WorkerState_WORKER_STATE_READY:                      job.WorkerReady,
		hodeiv1.WorkerState_WORKER_STATE_DRAINING:                   job.WorkerDraining,
		hodeiv1.WorkerState_WORKER_STATE_DISCONNECTED:               job.WorkerDisconnected,
		hodeiv1.WorkerState_WORKER_STATE_LOST:                       job.WorkerLost,
		hodeiv1.LogStream_LOG_STREAM_STDOUT:                         store.Stdout,
		hodeiv1.LogStream_LOG_STREAM_STDERR:                         store.Stderr,
	}
	if n := len(hodeiv1.ConstraintOperator_name) + len(hodeiv1.ConcurrencyPolicy_name); n != 12 {
		t.Errorf("there are %d operators and policies; add the new ones to this test and to what the conversions let pass", n)
	}
	for name, number := range pairs {
		enum, ok := name.(protoreflect.Enum)
		if !ok || fmt.Sprintf("%d", enum.Number()) != fmt.Sprintf("%d", number) {
			t.Errorf("%s has another number in the domain: %d", name, number)
		}
	}
}

func TestReasonsAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	for _, reason := range []job.Reason{
		job.ReasonInvalidArgument, job.ReasonJobNotFound, job.ReasonWorkerNotFound, job.ReasonStepNotFound, job.ReasonJobEnded,
		job.ReasonRequestIDReused, job.ReasonUnauthenticated, job.ReasonPermissionDenied, job.ReasonTokenRefused, job.ReasonLimitReached,
		job.ReasonUnavailable, job.ReasonResumeTokenExpired, job.ReasonStepNotRunning, job.ReasonSecretNotFound, job.ReasonTooLarge, job.ReasonNotFound,
	} {
		if _, ok := hodeiv1.ErrorReason_value["ERROR_REASON_"+string(reason)]; !ok {
			t.Errorf("%s is no reason of the API", reason)
		}
	}
}

func TestErrorsCarryWhatClientsNeedAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err     error
		code    connect.Code
		message string
		reason  string
		retry   bool
	}{
		{job.Errorf(job.CodeNotFound, job.ReasonJobNotFound, "no job"), connect.CodeNotFound, "no job", "JOB_NOT_FOUND", false},
		{&job.Error{Code: job.CodeExhausted, Reason: job.ReasonLimitReached, Message: "full", RetryAfter: time.Second}, connect.CodeResourceExhausted, "full", "LIMIT_REACHED", true},
		{fmt.Errorf("around: %w", job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "no")), connect.CodePermissionDenied, "no", "PERMISSION_DENIED", false},
		{connect.NewError(connect.CodeInvalidArgument, "bad field"), connect.CodeInvalidArgument, "bad field", "INVALID_ARGUMENT", false},
		{errors.New("secret path /var/lib"), connect.CodeInternal, "the server failed; its log says why", "UNSPECIFIED", false},
		{connect.NewError(connect.CodeNotFound, "of another server").WithRemote(), connect.CodeInternal, "the server failed; its log says why", "UNSPECIFIED", false},
	} {
		got := toConnect(tc.err)
		infos, retries := 0, 0
		for _, d := range got.Details() {
			var info errdetails.ErrorInfo
			switch d.Type {
			case "google.rpc.ErrorInfo":
				infos++
				if proto.Unmarshal(d.Value, &info) != nil || info.GetReason() != tc.reason || info.GetDomain() != "hodei" {
					t.Errorf("%v: the info is %v", tc.err, &info)
				}
			case "google.rpc.RetryInfo":
				retries++
			}
		}
		if got.Code() != tc.code || got.Message() != tc.message || infos != 1 || (retries == 1) != tc.retry {
			t.Errorf("%v became %s %q with %d infos and %d retries", tc.err, got.Code(), got.Message(), infos, retries)
		}
	}
}

func TestPanicEndsOneCall(t *testing.T) {
	t.Parallel()
	handler := translateErrors(slog.New(slog.DiscardHandler))(recoverPanics(
		func(_ context.Context, _ connect.Spec, _ connect.ServerStream) error {
			var none []error
			return none[len(t.Name())]
		}))
	if err := handler(t.Context(), connect.Spec{}, nil); connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("a panic gave %v", err)
	}
}

func TestSpecSurvivesTheWayThroughTheAPI(t *testing.T) {
	t.Parallel()
	spec := job.Spec{
		Name: "n", Namespace: "ns", Queue: "q", Labels: map[string]string{"a": "b"}, Env: map[string]string{"E": "1"},
		Steps: []job.Step{
			{
				Name: "one", Argv: []string{"a", "b"}, Env: map[string]string{"S": "2"}, WorkingDir: "/w", Timeout: time.Minute, Grace: time.Second,
				Secrets: []job.SecretRef{{Name: "A", Env: "B", File: true}},
			},
			{Name: "two", Script: "echo", Shell: []string{"bash", "-c"}, Grace: time.Second},
		},
		Resources:   job.Resources{MilliCPU: 1, MemoryMiB: 2, Extras: map[string]int32{"gpu": 3}},
		Constraints: []job.Constraint{{Label: "os", Operator: job.OperatorNotIn, Values: []string{"x"}}},
		Priority:    4, Timeout: time.Hour, MaxAttempts: 5, Backoff: job.Backoff{Initial: 1, Max: 2, Factor: 3},
		RunAfter: time.Unix(100, 0).UTC(),
		Placement: &job.Placement{
			Affinities: []job.Affinity{
				{Constraint: job.Constraint{Label: "v", Operator: job.OperatorVersion, Values: []string{"^1"}}, Weight: -100},
				{Constraint: job.Constraint{Label: "ssd", Operator: job.OperatorExists}, Weight: 7},
			},
			Spread: "zone", Apart: "hostname", Tolerations: []string{"batch", "spot"}, Requires: []string{"terminal"},
			Concurrency: &job.Concurrency{Key: "k", Limit: 2, Policy: job.ConcurrencyCancelRunning}, Gang: &job.Gang{Name: "g", Size: 3},
		},
	}
	if got := specFromProto(specToProto(&spec)); !reflect.DeepEqual(got, spec) {
		t.Errorf("got  %+v\nwant %+v", got, spec)
	}
	for _, p := range []*job.Placement{
		nil,
		{Spread: "a"},
		{Apart: "a"},
		{Tolerations: []string{"a"}},
		{Concurrency: &job.Concurrency{}},
		{Gang: &job.Gang{}},
		{Affinities: []job.Affinity{{Weight: 1}}},
	} {
		spec.Placement = p
		if got := specFromProto(specToProto(&spec)); !reflect.DeepEqual(got, spec) {
			t.Errorf("got  %+v\nwant %+v", got.Placement, p)
		}
	}
}

// A number that no enum has must not become one that the domain knows by being cut.
func TestEnumsOutOfRangeAreRefused(t *testing.T) {
	t.Parallel()
	for _, n := range []int32{0, 8, 256 + 1, 512 + 3, -255, -253} {
		spec := specFromProto(&hodeiv1.JobSpec{
			Steps:       []*hodeiv1.Step{{Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: []string{"x"}}}}},
			Constraints: []*hodeiv1.Constraint{{Label: "l", Operator: hodeiv1.ConstraintOperator(n)}},
		})
		if _, err := job.New(job.ID{1}, spec, time.Now()); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("the operator %d gave %v", n, err)
		}
		spec = specFromProto(&hodeiv1.JobSpec{
			Steps:       []*hodeiv1.Step{{Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: []string{"x"}}}}},
			Concurrency: &hodeiv1.Concurrency{Key: "k", Policy: hodeiv1.ConcurrencyPolicy(n)},
		})
		if _, err := job.New(job.ID{1}, spec, time.Now()); n != 0 && job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("the policy %d gave %v", n, err)
		}
	}
}

func TestWhatAnAgentSaysOfItsMachine(t *testing.T) {
	t.Parallel()
	w := workerFromRegister("wkr_1", identity.EnrolledWorker{Name: "n"}, &hwpv1.Register{
		Taints: []string{"spot", "batch\xff", "spot"}, Capacity: &hwpv1.Capacity{Extras: map[string]int32{"gpu": 2}},
	})
	p := workerToProto(&w)
	if !slices.Equal(p.GetTaints(), []string{"batch\uFFFD", "spot"}) || p.GetCapacity().GetExtras()["gpu"] != 2 {
		t.Errorf("the worker is %v", p)
	}
}

func TestStepsVariablesWinOverTheJobs(t *testing.T) {
	t.Parallel()
	j, err := job.New(job.ID{1}, job.Spec{
		Env: map[string]string{"A": "job", "B": "job"}, MaxAttempts: 2,
		Steps: []job.Step{{Argv: []string{"x"}, Env: map[string]string{"A": "step"}}, {Argv: []string{"y"}}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	j, _ = j.Assign("wkr_1", 7)
	got := assignmentsToProto([]orchestrator.Assignment{{Ref: j.Ref(), Spec: j.Spec, Retryable: true}})[0]
	if got.GetSteps()[0].GetEnv()["A"] != "step" || got.GetSteps()[0].GetEnv()["B"] != "job" || got.GetSteps()[1].GetEnv()["A"] != "job" {
		t.Errorf("the variables are %v and %v", got.GetSteps()[0].GetEnv(), got.GetSteps()[1].GetEnv())
	}
	if !got.GetRetryable() || got.GetAttempt().GetEpoch() != 7 {
		t.Errorf("the assignment is %v", got)
	}
}

func TestFramesOfABadAgent(t *testing.T) {
	t.Parallel()
	var f frameContent
	if err := f.add(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_Register{Register: &hwpv1.Register{}}}); err == nil {
		t.Error("a second Register was taken")
	}
	if err := f.add(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: &hwpv1.LogChunk{Data: []byte("x"), Stream: 9}}}); err == nil {
		t.Error("a chunk of stream 9 was taken")
	}
	known := &hwpv1.AttemptRef{JobId: job.ID{1}.String(), Attempt: 1}
	for _, m := range []*hwpv1.AgentMessage{
		{},
		{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: &hwpv1.LogChunk{Stream: hwpv1.LogStream_LOG_STREAM_STDOUT}}},
		{Payload: &hwpv1.AgentMessage_LogEnd{LogEnd: &hwpv1.LogEnd{Attempt: known, Streams: []*hwpv1.StreamTotal{{Sha256: []byte("short")}}}}},
	} {
		if err := f.add(m); err != nil {
			t.Errorf("%v: %v", m, err)
		}
	}
	if err := f.addReports([]*hwpv1.AttemptReport{{Attempt: &hwpv1.AttemptRef{JobId: "job_1"}}}); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("a report about no job gave %v", err)
	}
	reports := []*hwpv1.AttemptReport{
		{Attempt: known, Steps: []*hwpv1.StepReport{{Step: -5, EndTime: 1}, {}}},
		{Attempt: known, EndTime: 1, Outcome: &hwpv1.Outcome{Kind: 99}},
		{Attempt: known, EndTime: 1, Steps: []*hwpv1.StepReport{nil}},
	}
	if err := f.addReports(reports); err != nil {
		t.Error(err)
	}
	if len(f.chunks) != 0 || len(f.reports) != 3 || len(f.reports[0].Steps) != 2 || f.reports[0].Steps[0].Step != -5 ||
		f.reports[1].Cause.Kind != job.CauseAgentError || f.reports[2].Cause.Kind != job.CauseExitCode {
		t.Errorf("the frame is %+v", f)
	}
}

func TestPageTokens(t *testing.T) {
	t.Parallel()
	if got, err := decodePageToken(encodePageToken("job_1")); err != nil || got != "job_1" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := decodePageToken("***"); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("a token of nobody gave %v", err)
	}
}

// What never comes is told: which bytes of which attempt, and why. Whoever has them all already is not told.
func TestGapsAreTold(t *testing.T) {
	t.Parallel()
	removed := &store.LogEnd{Bytes: 1234, Removed: "it was too old"}
	cut := &store.LogEnd{Bytes: 1234, Missing: "the agent was restarted", Streams: []store.StreamTotal{{Stream: store.Stderr, Bytes: 1234}}}
	for name, c := range map[string]struct {
		end    *store.LogEnd
		offset uint64
		want   string
	}{
		"all of it":     {removed, 0, "bytes 0-1234 of attempt 2 are gone: it was too old"},
		"the rest":      {removed, 1000, "bytes 1000-1234 of attempt 2 are gone: it was too old"},
		"nothing of it": {removed, 1234, ""},
		"what was lost": {cut, 1234, "bytes from 1234 on of attempt 2 are missing: the agent was restarted"},
		"complete":      {&store.LogEnd{Bytes: 1234}, 1234, ""},
	} {
		reader := &tail{offset: c.offset, attempt: 2, spec: &job.Spec{Steps: []job.Step{{Name: "only"}}}}
		state, err := reader.ended(t.Context(), c.end)
		got := reader.completeness(state)
		if err != nil || got.GetMessage() != c.want || (got.GetState() == hodeiv1.LogState_LOG_STATE_GAP) != (c.want != "") || (len(got.GetGaps()) > 0) != (c.want != "") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if c.end == cut && (len(got.GetStreams()) != 1 || got.GetStreams()[0].GetStep() != "only" || got.GetStreams()[0].GetBytes() != "1234") {
			t.Errorf("the proof is %v", got.GetStreams())
		}
	}
}
