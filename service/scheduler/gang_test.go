package scheduler_test

import (
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

func TestGangThatNeverFitsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	ring := func(milli int32, apart string) func(*job.Spec) {
		return both(cpu(milli), placement(job.Placement{Gang: &job.Gang{Name: "ring", Size: 2}, Apart: apart}))
	}
	w := newWorld(scheduler.Options{}, worker("small", 1000, slots(1)), worker("large", 3000, slots(1)))
	w.add(ring(0, ""))
	w.add(ring(3000, ""))
	w.expect(t, "the small one leaves the large worker to the large one", "2:large 1:small")
	w.end("1")
	w.end("2")
	w.add(ring(1000, "os"))
	w.add(ring(1000, "os")) // both workers have the same
	for range 3 {
		w.now = w.now.Add(time.Minute)
		w.expect(t, "two that may not be where they could", "")
	}
	w.add(cpu(1000))
	w.add(cpu(3000))
	w.now = w.now.Add(time.Minute)
	w.expect(t, "others", "5:small 6:large")
}

// A promise to a gang is worth nothing when it comes due and the gang still cannot start.
func TestGangThatMissesItsPromiseHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 3000, slots(3)))
	w.add(both(cpu(2000), limit(time.Minute)))
	w.place()
	for range 2 {
		w.add(both(cpu(1500), placement(job.Placement{Gang: &job.Gang{Name: "ring", Size: 2}, Apart: "os"})))
	}
	w.add(cpu(3000))
	w.expect(t, "while all is taken", "")
	if id, _, ok := w.ReservedFor("w"); !ok || id.Time().Unix() != 2 {
		t.Fatalf("%v is promised the worker, %t", id, ok)
	}
	w.now = w.now.Add(time.Minute)
	w.end("1")
	w.expect(t, "when the promise is due", "4:w")
}
