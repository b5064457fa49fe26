package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// unfinished: exactly the jobs that have not ended, the oldest first.
func unfinished(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){
		"Order": unfinishedOrder, "Visitor": visitorsError, "WhileJobsEnd": unfinishedWhileJobsEnd,
	})
}

func unfinishedOrder(t *testing.T, h Harness) {
	s := open(t, h)
	wantUnfinished(t, s, nil)
	one, two, three := newJob(t, 1, nil), newJob(t, 2, nil), newJob(t, 3, nil)
	commit(t, s, &store.Batch{Accepted: []*job.Job{three, one, two, end(t, newJob(t, 4, nil))}})
	wantUnfinished(t, s, []*job.Job{one, two, three})
	commit(t, s, &store.Batch{Changed: []*job.Job{end(t, two), assign(t, three)}})
	wantUnfinished(t, s, []*job.Job{one, assign(t, three)})
}

func visitorsError(t *testing.T, h Harness) {
	s := open(t, h)
	commit(t, s, &store.Batch{Accepted: []*job.Job{newJob(t, 1, nil), newJob(t, 2, nil), newJob(t, 3, nil)}})
	stop := errors.New("stop")
	visited := 0
	visit := func(job.Job) error {
		if visited++; visited == 2 {
			return stop
		}
		return nil
	}
	if _, err := s.Unfinished(t.Context(), visit); !errors.Is(err, stop) || visited != 2 {
		t.Errorf("the visitor's error came back as %v after %d visits", err, visited)
	}
}

// unfinishedWhileJobsEnd: a job that ends while all are read is not taken for a damaged one, nor for what it is not.
func unfinishedWhileJobsEnd(t *testing.T, h Harness) {
	s := open(t, h)
	jobs := make([]*job.Job, 300)
	ended := make([]*job.Job, len(jobs))
	for n := range jobs {
		jobs[n] = assign(t, newJob(t, n, nil))
		ended[n] = endAssigned(t, jobs[n])
	}
	commit(t, s, &store.Batch{Accepted: jobs})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for piece := range slices.Chunk(ended, 5) {
			if err := s.Commit(context.Background(), &store.Batch{Changed: piece}); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		damaged, err := s.Unfinished(t.Context(), func(j job.Job) error {
			if j.State != job.Assigned {
				t.Errorf("an unfinished job was visited as %s", j.State)
			}
			return nil
		})
		if err != nil || damaged != 0 {
			t.Fatalf("%d damaged, %v", damaged, err)
		}
	}
	for _, j := range ended {
		wantJob(t, s, j)
	}
}
