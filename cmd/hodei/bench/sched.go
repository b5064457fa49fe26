package bench

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/hodei-jobs/hodei/service/scheduler/simulator"
)

// SchedOptions say what Sched measures.
type SchedOptions struct {
	Workers  int // of the cluster whose speed is measured; the large one has ten times as many
	Jobs     int // that are placed while the clock runs
	Seed     uint64
	Progress io.Writer
}

// SchedResult is what Sched measured. The figures at the top are those of the groups: the speed, and under Hodei the workload of the
// model.
type SchedResult struct {
	Workers             int       `json:"workers"`
	Jobs                int       `json:"jobs"`
	Seed                uint64    `json:"seed"`
	PlacementsPerSecond float64   `json:"placements_per_second"`
	PassMillis          Quantiles `json:"pass_ms"`
	Utilisation         float64   `json:"utilisation"`
	MeanWaitSeconds     float64   `json:"mean_wait_seconds"`

	Speed      SchedSpeed         `json:"speed"`
	Large      SchedSpeed         `json:"large"`
	PoliciesOn SchedPolicies      `json:"policies_on"`
	Lublin     SchedLublin        `json:"lublin"`
	Fairness   SchedFairness      `json:"fairness"`
	Packing    *simulator.Packing `json:"packing"`
}

// SchedPolicies is a speed beside the one without policies.
type SchedPolicies struct {
	SchedSpeed
	Ratio float64 `json:"ratio"` // of its placements a second to those without policies
}

// SchedLublin compares disciplines on the workload of the model of Lublin and Feitelson, on one machine of 256 CPUs.
type SchedLublin struct {
	Jobs int               `json:"jobs"`
	FCFS *simulator.Result `json:"fcfs"`
	Own  *simulator.Result `json:"hodei"`
	// UtilisationGain is the difference in points, WaitReduction by which part the mean wait is shorter.
	UtilisationGain float64 `json:"utilisation_gain_points"`
	WaitReduction   float64 `json:"wait_reduction"`
}

// SchedFairness is what namespaces of different weights got of a full cluster.
type SchedFairness struct {
	Namespaces  int     `json:"namespaces"`
	Jobs        int     `json:"jobs"`
	Utilisation float64 `json:"utilisation"`
	Jain        float64 `json:"jain_index"`
	Deviation   float64 `json:"largest_deviation"` // of what one got from its weight's part
}

const (
	lublinJobs       = 10_000
	lublinProcessors = 256
	packedJobs       = 10_000
	fairWorkers      = 250
	fairNamespaces   = 20
	fairJobs         = 1000 // for each namespace and unit of its weight
)

// Sched measures the scheduler alone, in this process: how fast it decides, on one core, and in virtual time how good its decisions are.
func Sched(ctx context.Context, o SchedOptions) (*SchedResult, error) {
	if o.Workers < 1 || o.Jobs < 1 {
		return nil, fmt.Errorf("%d workers and %d jobs: there must be at least one of each", o.Workers, o.Jobs)
	}
	r := &SchedResult{Workers: o.Workers, Jobs: o.Jobs, Seed: o.Seed}
	for _, group := range []struct {
		name    string
		measure func() error
	}{
		{"speed", func() error {
			plain, policies := plainLoad(o), policyLoad(o)
			err := measureSpeed(ctx, plain, policies)
			r.Speed, r.PoliciesOn.SchedSpeed = plain.speed(), policies.speed()
			return err
		}},
		{"speed of a large cluster", func() error {
			large := largeLoad(o)
			err := measureSpeed(ctx, large)
			r.Large = large.speed()
			return err
		}},
		{"workload of the model", func() (err error) { r.Lublin, err = compareOnLublin(ctx, o.Seed); return err }},
		{"fairness", func() (err error) { r.Fairness, err = measureFairness(ctx, o.Seed); return err }},
		{"packing", func() (err error) {
			r.Packing, err = simulator.Pack(packedCluster, simulator.Mix(packedJobs, o.Seed))
			return err
		}},
	} {
		begin := time.Now()
		if err := group.measure(); err != nil {
			return nil, fmt.Errorf("%s: %w", group.name, err)
		}
		if o.Progress != nil {
			fmt.Fprintf(o.Progress, "hodei: %s took %v\n", group.name, time.Since(begin).Round(100*time.Millisecond))
		}
	}
	r.PoliciesOn.Ratio = r.PoliciesOn.PlacementsPerSecond / r.Speed.PlacementsPerSecond
	r.PlacementsPerSecond, r.PassMillis = r.Speed.PlacementsPerSecond, r.Speed.PassMillis
	r.Utilisation, r.MeanWaitSeconds = r.Lublin.Own.Utilisation, r.Lublin.Own.Wait.Mean
	return r, nil
}

// packedCluster is what the workers are that jobs are packed on.
var packedCluster = simulator.Cluster{Workers: 1, MilliCPU: 32_000, MemoryMiB: 128 << 10}

func compareOnLublin(ctx context.Context, seed uint64) (SchedLublin, error) {
	r := SchedLublin{Jobs: lublinJobs}
	setup := simulator.Setup{
		Cluster: simulator.Cluster{Workers: 1, MilliCPU: 1000 * lublinProcessors}, Promises: true,
		Jobs: simulator.Lublin{Jobs: lublinJobs, Processors: lublinProcessors, Seed: seed}.Generate(),
	}
	var err error
	if r.Own, err = simulator.Run(ctx, setup); err != nil {
		return r, err
	}
	setup.FirstCome = true
	if r.FCFS, err = simulator.Run(ctx, setup); err != nil {
		return r, err
	}
	r.UtilisationGain = 100 * (r.Own.Utilisation - r.FCFS.Utilisation)
	if r.FCFS.Wait.Mean > 0 {
		r.WaitReduction = 1 - r.Own.Wait.Mean/r.FCFS.Wait.Mean
	}
	return r, nil
}

// measureFairness lets namespaces whose jobs are many, and small beside their parts, fill a cluster. Each has work for its weight, so that
// all have some until near the end.
func measureFairness(ctx context.Context, seed uint64) (SchedFairness, error) {
	policy := new(simulator.Policy)
	var jobs []simulator.Job
	for i := range fairNamespaces {
		n := simulator.NamespacePolicy{Name: fmt.Sprintf("tenant-%d", i), Weight: int32(1 + i%5)}
		policy.Namespaces = append(policy.Namespaces, n)
		own := simulator.Mix(fairJobs*int(n.Weight), seed+uint64(i))
		for k := range own {
			own[k].Namespace = n.Name
		}
		jobs = append(jobs, own...)
	}
	simulator.Cap(jobs, 4000)
	r := SchedFairness{Namespaces: fairNamespaces, Jobs: len(jobs)}
	result, err := simulator.Run(ctx, simulator.Setup{
		Cluster: simulator.Cluster{Workers: fairWorkers, MilliCPU: 32_000}, Jobs: jobs, Policy: policy,
	})
	if err != nil {
		return r, err
	}
	if result.Fairness == nil {
		return r, fmt.Errorf("the cluster was never full")
	}
	r.Utilisation, r.Jain, r.Deviation = result.Utilisation, result.Fairness.Jain, result.Fairness.Deviation
	return r, nil
}

// onOneCore lets the measurement and the collection of its garbage have one core together.
func onOneCore(measure func() error) error {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	runtime.GC()
	return measure()
}
