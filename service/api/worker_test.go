package api

import (
	"slices"
	"testing"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// Whose jobs a worker gets is shown, but for the names of namespaces in which the caller has no rights.
func TestQueuesOfWorkersAreShownToThoseWhomTheyConcern(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.grant(t, "user/ann", "viewer", "a")
	for name, queues := range map[string][]string{"1": nil, "2": {"a/x", "b/y"}, "3": {"b/*"}} {
		worker := job.Worker{ID: job.WorkerID("wkr_" + name), Name: name, Slots: 1, Session: 1, Queues: queues}
		if _, err := w.config.Jobs.Connect(t.Context(), worker, nil, false); err != nil {
			t.Fatal(err)
		}
	}
	for user, want := range map[string][][]string{
		"ann": {nil, {"a/x"}, nil}, identity.Administrator: {nil, {"a/x", "b/y"}, {"b/*"}},
	} {
		answers, err := w.call(t.Context(), w.token(t, user), "/hodei.v1.WorkerService/ListWorkers", &hodeiv1.ListWorkersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		list := answers[0].(*hodeiv1.ListWorkersResponse).GetWorkers() //nolint:forcetypeassert // answers it
		for i, x := range list {
			answers, err := w.call(t.Context(), w.token(t, user), "/hodei.v1.WorkerService/GetWorker", &hodeiv1.GetWorkerRequest{Id: x.GetId()})
			if err != nil {
				t.Fatal(err)
			}
			alone := answers[0].(*hodeiv1.GetWorkerResponse).GetWorker() //nolint:forcetypeassert // answers it
			for _, p := range []*hodeiv1.Worker{x, alone} {
				if !slices.Equal(p.GetQueues(), want[i]) || p.GetBound() != (i > 0) {
					t.Errorf("to %s worker %s is shown with %q, bound: %t", user, p.GetName(), p.GetQueues(), p.GetBound())
				}
			}
		}
		if len(list) != len(want) {
			t.Errorf("%s sees %d workers", user, len(list))
		}
	}
}
