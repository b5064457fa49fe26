package simulator

import (
	"math"
	"slices"
	"testing"
	"time"
)

// The numbers are of lublin_256.swf of github.com/DIR-LAB/deep-batch-scheduler: 10,000 jobs that the authors' own program made for 256
// processors. The far ends of its distributions are left to chance, so they are not compared.
func TestLublinIsLikeTheAuthorsOwnProgram(t *testing.T) {
	t.Parallel()
	const n = 100_000
	jobs := Lublin{Jobs: n, Processors: 256, Seed: 1}.Generate()
	var runtimes, sizes, gaps []float64
	serial, powers := 0.0, 0.0
	for i := range jobs {
		size := int(jobs[i].MilliCPU / 1000)
		runtimes, sizes = append(runtimes, jobs[i].Runtime.Seconds()), append(sizes, float64(size))
		if i > 0 {
			gaps = append(gaps, (jobs[i].Submit - jobs[i-1].Submit).Seconds())
		}
		if size == 1 {
			serial++
		}
		if size&(size-1) == 0 {
			powers++
		}
	}
	mean := distributionOf(slices.Clone(sizes)).Mean
	for _, list := range [][]float64{runtimes, sizes, gaps} {
		slices.Sort(list)
	}
	for _, tc := range []struct {
		what      string
		got, want float64
	}{
		{"runtime p10", quantile(runtimes, 0.10), 7},
		{"runtime p25", quantile(runtimes, 0.25), 21},
		{"runtime p50", quantile(runtimes, 0.50), 137},
		{"runtime p75", quantile(runtimes, 0.75), 8272},
		{"runtime p90", quantile(runtimes, 0.90), 15_590},
		{"runtime p95", quantile(runtimes, 0.95), 20_673},
		{"runtime p99", quantile(runtimes, 0.99), 36_174},
		{"size p50", quantile(sizes, 0.50), 8},
		{"size p90", quantile(sizes, 0.90), 64},
		{"size p95", quantile(sizes, 0.95), 128},
		{"size, mean", mean, 22.1},
		{"part of serial jobs", serial / n, 0.2493},
		{"part of powers of two", powers / n, 0.8613},
		{"gap p10", quantile(gaps, 0.10), 18},
		{"gap p25", quantile(gaps, 0.25), 41},
		{"gap p50", quantile(gaps, 0.50), 116},
		{"gap p75", quantile(gaps, 0.75), 366},
		{"gap p90", quantile(gaps, 0.90), 1270},
		{"gap p95", quantile(gaps, 0.95), 2626},
	} {
		if math.Abs(tc.got/tc.want-1) > 0.08 {
			t.Errorf("%s is %g, of the authors' program %g", tc.what, tc.got, tc.want)
		}
	}
}

func TestLublinHasDaysAndNights(t *testing.T) {
	t.Parallel()
	var hours [24]int
	for _, j := range (Lublin{Jobs: 50_000, Processors: 64, Seed: 3}).Generate() {
		hours[int(j.Submit.Hours())%24]++
	}
	if noon, night := hours[11]+hours[12]+hours[13], hours[3]+hours[4]+hours[5]; noon < 4*night {
		t.Errorf("%d jobs come around noon and %d at night", noon, night)
	}
}

func TestTheSameSeedGivesTheSameJobs(t *testing.T) {
	t.Parallel()
	l := Lublin{Jobs: 1000, Processors: 256, Seed: 7}
	first := l.Generate()
	if !slices.Equal(first, l.Generate()) {
		t.Error("two runs differ")
	}
	l.Jobs = 500
	if !slices.Equal(first[:500], l.Generate()) {
		t.Error("a shorter workload is not the beginning of a longer one")
	}
	l.Seed = 8
	if slices.Equal(first[:500], l.Generate()) {
		t.Error("another seed gives the same jobs")
	}
	if !slices.Equal(Mix(300, 1), Mix(300, 1)) {
		t.Error("two mixes of a seed differ")
	}
}

func TestLublinOnAnyMachine(t *testing.T) {
	t.Parallel()
	for _, processors := range []int{-1, 0, 1, 2, 3, 5, 100, 1 << 20, math.MaxInt} {
		for _, j := range (Lublin{Jobs: 500, Processors: processors, Seed: 1}).Generate() {
			if err := j.validate(); err != nil || j.MilliCPU < 1000 || int(j.MilliCPU) > 1000*min(max(processors, 2), maxCPUs) {
				t.Fatalf("of %d processors a job asks for %d thousandths: %v", processors, j.MilliCPU, err)
			}
		}
	}
}

func TestLimitsAreRoundAndLongEnough(t *testing.T) {
	t.Parallel()
	jobs := Lublin{Jobs: 5000, Processors: 256, Seed: 2}.Generate()
	seen := make(map[time.Duration]int)
	for _, j := range jobs {
		if j.Limit < j.Runtime {
			t.Fatalf("a job of %v has a limit of %v", j.Runtime, j.Limit)
		}
		seen[j.Limit]++
	}
	if len(seen) > len(popular) {
		t.Errorf("%d different limits", len(seen))
	}
	jobs = []Job{{Runtime: 100 * time.Hour}, {Runtime: 0}}
	if Estimate(jobs, 1); jobs[0].Limit != 120*time.Hour || jobs[1].Limit != 5*time.Minute {
		t.Errorf("limits of %v and %v", jobs[0].Limit, jobs[1].Limit)
	}
}
