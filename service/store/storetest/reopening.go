package storetest

import (
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// reopening: everything is there after the store was closed and opened, as often as that happens.
func reopening(t *testing.T, h Harness) {
	s := h.Open(t)
	var jobs []*job.Job
	for n := range 6 {
		commit(t, s, wholeBatch(t, n))
		jobs = append(jobs, newJob(t, 2*n, nil))
		if n%2 == 0 {
			jobs[n] = assign(t, jobs[n])
			commit(t, s, &store.Batch{Changed: jobs[n:]})
		}
		ref := store.LogRef{Job: jobs[n].ID, Attempt: 1}
		appendLogs(t, s, blocksOf(ref, "x")...)
		s = h.Reopen(t, s)
		for earlier := range n + 1 {
			if have, all := parts(t, s, earlier); have != all {
				t.Errorf("of batch %d, %d of %d parts are there", earlier, have, all)
			}
			wantJob(t, s, jobs[earlier])
			if state, err := s.LogState(t.Context(), store.LogRef{Job: jobs[earlier].ID, Attempt: 1}); err != nil || state.Bytes != 2 {
				t.Errorf("the log of job %d is %+v, %v", earlier, state, err)
			}
		}
		wantUnfinished(t, s, jobs)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
