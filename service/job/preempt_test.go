package job_test

import (
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// preempting makes a job that runs, may run again, and was asked to make room.
func preempting(t *testing.T) job.Job {
	t.Helper()
	j, _ := newJob(t, func(s *job.Spec) { s.MaxAttempts = 2 }).Assign("wkr_1", 1)
	j, _ = j.StepStarted(0, start)
	asked, err := j.Preempt()
	if err != nil || !asked.Preempting || asked.Revision == j.Revision || asked.State != job.Running {
		t.Fatalf("the job became %+v, %v", asked, err)
	}
	return asked
}

func TestJobThatMadeRoomWaitsAndHasLostNoAttempt(t *testing.T) {
	t.Parallel()
	j := preempting(t)
	if again, err := j.Preempt(); err != nil || again.Revision != j.Revision {
		t.Errorf("asking again changed the job: %v", err)
	}
	for n := int32(1); n <= 3; n++ {
		var err error
		if j, err = j.Finish(job.Cause{Kind: job.CauseCanceled}, start); err != nil || j.State != job.Delayed || !j.NextAttempt.Equal(start) ||
			j.Preemptions != n || j.Preempting {
			t.Fatalf("the job became %+v, %v", j, err)
		}
		j, _ = j.Ready()
		j, _ = j.Assign("wkr_1", uint64(n+1))
		if !j.Retryable() || j.Attempt != n+1 {
			t.Errorf("attempt %d of a job that made room %d times may not be followed by another", j.Attempt, n)
		}
		j, _ = j.Preempt()
	}
	// Both attempts that it was promised are left, and the backoff counts those alone.
	if j, _ = j.Finish(exit(1), start); j.State != job.Delayed || !j.NextAttempt.Equal(start.Add(time.Second)) || j.Preempting {
		t.Fatalf("a failure while it was to make room gave %+v", j)
	}
	j, _ = j.Ready()
	j, _ = j.Assign("wkr_1", 9)
	if j, _ = j.Finish(exit(1), start); j.State != job.Failed || j.Preemptions != 3 {
		t.Errorf("the last attempt gave %+v", j)
	}
}

func TestHowAJobEndsThatWasAskedToMakeRoom(t *testing.T) {
	t.Parallel()
	done, _ := preempting(t).Finish(exit(0), start)
	if done.State != job.Succeeded || done.Preempting || done.Preemptions != 0 {
		t.Errorf("one that ended well by itself became %+v", done)
	}
	canceling, _ := preempting(t).RequestCancel(job.CancelRequest{Actor: "user/a"}, start)
	if canceled, _ := canceling.Finish(job.Cause{Kind: job.CauseCanceled}, start); canceled.State != job.Canceled || canceled.Cause.Actor != "user/a" {
		t.Errorf("one that a user canceled meanwhile became %+v", canceled)
	}
	if lost, _ := preempting(t).Lose("gone", start); lost.State != job.Delayed || lost.Preemptions != 0 {
		t.Errorf("one whose worker was lost became %+v", lost)
	}
}

func TestWhoIsNeverAskedToMakeRoom(t *testing.T) {
	t.Parallel()
	for _, state := range reachable {
		if _, err := inState(t, state).Preempt(); job.CodeOf(err) != job.CodePrecondition {
			t.Errorf("a job that may start once, and is %s, was asked: %v", state, err)
		}
	}
	waiting := newJob(t, func(s *job.Spec) { s.MaxAttempts = 2 })
	if _, err := waiting.Preempt(); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("a job that waits was asked: %v", err)
	}
}
