package scheduler

import "github.com/hodei-jobs/hodei/service/job"

// score says how well a job fits a worker that passed every filter; the highest wins.
//
// It packs: what is left of the scarcest resource after placing the job should be small, so that large jobs find whole
// workers free. Between workers that are reserved alike, the one with less measured load is better.
func score(spec *job.Spec, c *candidate) float64 {
	left := c.free.Sub(spec.Resources)
	packed := 1 - (share(left.MilliCPU, c.worker.Capacity.MilliCPU)+share(left.MemoryMiB, c.worker.Capacity.MemoryMiB))/2
	load := (share(c.worker.Used.MilliCPU, c.worker.Capacity.MilliCPU) + share(c.worker.Used.MemoryMiB, c.worker.Capacity.MemoryMiB)) / 2
	slots := share(c.slots, c.worker.Slots)
	return packed - loadWeight*load + slotWeight*slots
}

// Load and free slots matter less than packing: they decide between workers that are packed about alike, and spread jobs
// that ask for nothing.
const (
	loadWeight = 0.2
	slotWeight = 0.1
)

func share(part, whole int32) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
