package hodeitest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	"github.com/hodei-jobs/hodei/clients/go/hodeitest"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func script(text string) *hodeiv1.JobSpec {
	return &hodeiv1.JobSpec{Steps: []*hodeiv1.Step{{Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: text}}}}}
}

func TestServerRunsJobs(t *testing.T) {
	s := hodeitest.NewServer(t)
	job, err := s.Client.Run(t.Context(), script("echo one; echo two"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line, err := range s.Client.Logs(t.Context(), job.GetId(), hodei.LogOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line.Text())
	}
	if !slices.Equal(lines, []string{"one", "two"}) {
		t.Errorf("the lines are %q", lines)
	}
	_, err = s.Client.Run(t.Context(), script("echo no luck; exit 9"))
	var failed *hodei.JobError
	if !errors.As(err, &failed) || failed.ExitCode() != 9 || !slices.Equal(failed.LogTail, []string{"no luck"}) {
		t.Errorf("a job that fails gives %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Client.Run(ctx, script("sleep 600")); !errors.Is(err, hodei.ErrWaitTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting no longer gives %v", err)
	}
}

// Whoever stops waiting, or following, does not stop the job.
func TestStoppingToWaitLeavesTheJob(t *testing.T) {
	s := hodeitest.NewServer(t)
	job, err := s.Client.Submit(t.Context(), script("echo on it; sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for line, err := range s.Client.Logs(ctx, job.GetId(), hodei.LogOptions{Follow: true}) {
		if err == nil && line.Text() == "on it" {
			cancel()
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("following no longer gave %q and %v", line.Text(), err)
		}
	}
	if _, err := s.Client.Wait(ctx, job.GetId()); !errors.Is(err, context.Canceled) || errors.Is(err, hodei.ErrWaitTimeout) {
		t.Errorf("waiting no longer gave %v", err)
	}
	if _, err := s.Client.Cancel(t.Context(), job.GetId(), hodei.CancelOptions{Force: true}); err != nil {
		t.Errorf("the job went on until it was canceled, but for %v", err)
	}
}

// The results of Map come in the order of the specs; a job that is refused, or fails, takes nothing from the others.
func TestMapKeepsTheOrder(t *testing.T) {
	s := hodeitest.NewServer(t)
	specs := []*hodeiv1.JobSpec{script("sleep 0.2"), script("exit 3"), {}, script("true")}
	var got []string
	for job, err := range s.Client.Map(t.Context(), specs) {
		var failed *hodei.JobError
		switch {
		case errors.As(err, &failed):
			got = append(got, fmt.Sprint("exit ", failed.ExitCode()))
		case errors.Is(err, hodei.ErrInvalidArgument):
			got = append(got, fmt.Sprint("refused ", job == nil))
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, job.GetState().String())
		}
	}
	if want := []string{"JOB_STATE_SUCCEEDED", "exit 3", "refused true", "JOB_STATE_SUCCEEDED"}; !slices.Equal(got, want) {
		t.Errorf("the results are %q, want %q", got, want)
	}
	for range s.Client.Map(t.Context(), []*hodeiv1.JobSpec{script("true"), script("sleep 600")}) {
		break // the watches end, or the test hangs here
	}
}

func BenchmarkRun(b *testing.B) {
	s := hodeitest.NewServer(b)
	spec := script("true")
	for b.Loop() {
		if _, err := s.Client.Run(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRunRaw does the same with the generated stubs: what Run adds is the difference.
func BenchmarkRunRaw(b *testing.B) {
	s := hodeitest.NewServer(b)
	spec := script("true")
	for b.Loop() {
		if err := runRaw(b.Context(), s.Client.Raw.Jobs, spec); err != nil {
			b.Fatal(err)
		}
	}
}
