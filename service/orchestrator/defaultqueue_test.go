package orchestrator_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// setDefault gives the namespace "default" a default queue.
func (r *rig) setDefault(t *testing.T, name string) orchestrator.NamespaceStatus {
	t.Helper()
	n := job.DefaultNamespaceSettings("default")
	n.DefaultQueue = name
	status, err := r.SetNamespace(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// waitsIn checks where a job waits, as memory and the store know it.
func (r *rig) waitsIn(t *testing.T, id job.ID, want string) {
	t.Helper()
	if j, err := r.Get(t.Context(), id); err != nil || j.Spec.Queue != want {
		t.Errorf("the job is in queue %q, %v; want %q", j.Spec.Queue, err, want)
	}
	if queues, err := r.Queues(t.Context(), "default"); err != nil || !anyWaits(queues, want) {
		t.Errorf("none waits in %q of %+v, %v", want, queues, err)
	}
}

func anyWaits(queues []orchestrator.QueueStatus, name string) bool {
	for i := range queues {
		if queues[i].Name == name && queues[i].Waiting > 0 {
			return true
		}
	}
	return false
}

func TestJobsThatNameNoQueueWaitInThatOfTheirNamespace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		r := openRig(t, disk)
		in := func(namespace, queue string) func(*job.Spec) {
			return func(s *job.Spec) { s.Namespace, s.Queue = namespace, queue }
		}
		before := r.submit(t, in("default", ""))
		if status := r.setDefault(t, "batch"); status.DefaultQueue != "batch" || !status.Set {
			t.Errorf("the namespace is %+v", status)
		}
		batch := r.submit(t, in("default", ""))
		named, other := r.submit(t, in("default", "default")), r.submit(t, in("other", ""))
		if batch.Spec.Queue != "batch" || named.Spec.Queue != "default" || other.Spec.Queue != "default" {
			t.Errorf("the queues are %q, %q and %q", batch.Spec.Queue, named.Spec.Queue, other.Spec.Queue)
		}
		r.waitsIn(t, batch.ID, "batch")
		r.waitsIn(t, before.ID, "default") // it was decided when the job was accepted
		if _, err := r.PauseQueue(t.Context(), "default", "batch", true); err != nil {
			t.Fatal(err)
		}
		r.connect(t)
		synctest.Wait()
		if r.state(t, batch.ID) != job.Queued || r.state(t, named.ID) != job.Assigned {
			t.Errorf("with a pause the jobs are %s and %s", r.state(t, batch.ID), r.state(t, named.ID))
		}
		r.close(t)
		time.Sleep(time.Second) // ids begin anew with every rig, and differ by their times

		r = openRig(t, disk)
		defer r.close(t)
		r.waitsIn(t, batch.ID, "batch")
		spec := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}
		if j, err := r.Validate(t.Context(), spec); err != nil || j.Spec.Queue != "batch" {
			t.Errorf("it would be in %q, %v", j.Spec.Queue, err)
		}
		if j, e, err := r.ExplainSpec(t.Context(), spec); err != nil || j.Spec.Queue != "batch" || !strings.Contains(e.Text, "queue batch of namespace default is paused") {
			t.Errorf("it would wait in %q because %q, %v", j.Spec.Queue, e.Text, err)
		}
		spec.Queue = "default"
		if j, err := r.Validate(t.Context(), spec); err != nil || j.Spec.Queue != "default" {
			t.Errorf("with a queue of its own it would be in %q, %v", j.Spec.Queue, err)
		}
		if err := r.DeleteNamespace(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		if j := r.submit(t, in("default", "")); j.Spec.Queue != "default" {
			t.Errorf("without the setting it is in %q", j.Spec.Queue)
		}
	})
}

// A submission that is repeated gives the job that was made, although jobs that name no queue have another one by now.
func TestRepeatedSubmissionKeepsItsQueue(t *testing.T) {
	t.Parallel()
	r := openRig(t, vfs.NewMem())
	defer r.close(t)
	var ids []job.ID
	for _, name := range []string{"first", "second"} {
		r.setDefault(t, name)
		results, err := r.Submit(t.Context(), orchestrator.Submission{
			Specs: []job.Spec{{Steps: []job.Step{{Argv: []string{"true"}}}}}, RequestID: "once",
		})
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
		ids = append(ids, results[0].Job.ID)
		r.waitsIn(t, results[0].Job.ID, "first")
	}
	if ids[0] != ids[1] {
		t.Errorf("two jobs were made: %v", ids)
	}
}

func TestWrongDefaultQueueIsRefused(t *testing.T) {
	t.Parallel()
	r := openRig(t, vfs.NewMem())
	defer r.close(t)
	n := job.DefaultNamespaceSettings("default")
	n.DefaultQueue = "Not A Name"
	if _, err := r.SetNamespace(t.Context(), n); job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), "default queue") {
		t.Errorf("it gave %v", err)
	}
}
