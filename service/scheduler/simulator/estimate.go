package simulator

import "time"

// popular are the limits that people give: few, and round. About twenty values are nine tenths of all limits in recorded workloads
// (D. Tsafrir, Y. Etsion, D. G. Feitelson, "Modeling user runtime estimates", JSSPP 2005).
var popular = [...]time.Duration{
	5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 20 * time.Minute, 30 * time.Minute, 45 * time.Minute, time.Hour,
	90 * time.Minute, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 5 * time.Hour, 6 * time.Hour, 8 * time.Hour, 10 * time.Hour,
	12 * time.Hour, 18 * time.Hour, 24 * time.Hour, 36 * time.Hour, 48 * time.Hour,
}

// leastAccuracy bounds how much too long a limit is, before it is rounded.
const leastAccuracy = 0.05

// Estimate gives jobs the limits that people would: the part of its limit that a job uses is about as likely to be small as large, and
// the limit is a popular value. It is never less than the runtime.
func Estimate(jobs []Job, seed uint64) {
	random := stream(seed, limitStream)
	for i := range jobs {
		used := leastAccuracy + (1-leastAccuracy)*random.Float64()
		jobs[i].Limit = roundLimit(jobs[i].Runtime, time.Duration(float64(jobs[i].Runtime)/used))
	}
}

// roundLimit returns the popular value that is at least a time. Who would need more than the largest takes that, or whole days when
// the job really runs longer.
func roundLimit(runtime, want time.Duration) time.Duration {
	for _, p := range popular {
		if p >= want {
			return p
		}
	}
	const day = 24 * time.Hour
	return max(popular[len(popular)-1], (runtime+day-1)/day*day)
}
