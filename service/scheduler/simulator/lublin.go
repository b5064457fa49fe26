package simulator

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Lublin says which workload the model of Lublin and Feitelson makes: rigid jobs of a parallel computer, without a distinction of batch
// and interactive ones (U. Lublin, D. G. Feitelson, "The workload on parallel supercomputers: modeling the characteristics of rigid
// jobs", J. Parallel Distrib. Comput. 63, 2003).
//
// A processor of the model is a CPU here. In the classical setting the machine is one worker with all the processors; on
// several workers no job may be larger than one of them, see Cap.
type Lublin struct {
	Jobs       int
	Processors int // of the machine, from 2 to two millions
	Seed       uint64
}

// The parameters as they were published. Those about sizes are for a machine of 128 processors; the upper two grow with the machine.
const (
	serialShare = 0.244 // of jobs ask for one processor
	powerShare  = 0.576 // of jobs ask for a power of two
	sizeLow     = 0.8   // log2 of the smallest parallel size, a little lower so that 2 is not too rare
	sizeKnee    = 2.5   // how far the change of the distribution is below the log2 of the machine's size
	belowKnee   = 0.86  // of parallel jobs are smaller

	shortShape, shortScale = 4.2, 0.94       // of the logarithm of short runtimes
	longShape, longScale   = 312, 0.03       // of long ones
	shortSlope             = -0.0054         // how much rarer short jobs are, for each processor
	shortShare             = 0.78            // of jobs without processors would be short
	longestLog             = 12.0            // almost two days
	gapShape, gapScale     = 10.2303, 0.4871 // of the logarithm of the time between two jobs in busy hours
	gapRatio               = 1.0225          // from busy hours to all hours
	longestGapLog          = 13.0            // about five days
	cycleShape, cycleScale = 8.1737, 3.9631  // of how the arrivals are spread over the day
	cycleStart             = 11              // the half hour in which the model's day begins
)

// Generate makes the workload. The jobs are in the order of their submission, and their limits are as Estimate makes them.
func (l Lublin) Generate() []Job {
	l.Processors = min(max(l.Processors, 2), maxCPUs)
	arrivals, sizes, runtimes := stream(l.Seed, arrivalStream), stream(l.Seed, sizeStream), stream(l.Seed, runtimeStream)
	day := newDay()
	jobs := make([]Job, l.Jobs)
	at := time.Duration(0)
	for i := range jobs {
		at += day.pass(truncated(longestGapLog, func() float64 { return gamma(arrivals, gapShape*gapRatio, gapScale) }))
		size := l.size(sizes)
		jobs[i] = Job{
			Number: i + 1, Submit: at, Runtime: runtimeOf(runtimes, size), MilliCPU: int32(1000 * size),
			Namespace: job.DefaultNamespace, Queue: job.DefaultQueue,
		}
	}
	Estimate(jobs, l.Seed)
	return jobs
}

// size draws how many processors a job asks for: one, a power of two, or anything, by a two-stage uniform logarithm.
func (l Lublin) size(random *rand.Rand) int {
	kind := random.Float64()
	if kind < serialShare {
		return 1
	}
	high := math.Log2(float64(l.Processors))
	knee := max(high-sizeKnee, sizeLow)
	low := sizeLow
	if random.Float64() >= belowKnee {
		low, knee = knee, high
	}
	log := low + random.Float64()*(knee-low)
	if kind < serialShare+powerShare {
		log = math.Round(log)
	}
	return min(int(math.Round(math.Exp2(log))), l.Processors)
}

// runtimeOf draws how long a job runs: by a gamma distribution of short or of long jobs, and large jobs are long more often.
func runtimeOf(random *rand.Rand, size int) time.Duration {
	short := min(max(shortSlope*float64(size)+shortShare, 0), 1)
	seconds := truncated(longestLog, func() float64 {
		if random.Float64() < short {
			return gamma(random, shortShape, shortScale)
		}
		return gamma(random, longShape, longScale)
	})
	return max(time.Duration(seconds), 1) * time.Second
}

// truncated returns the exponential of a draw, which is repeated until it is no larger than most.
func truncated(most float64, draw func() float64) float64 {
	for {
		if log := draw(); log <= most {
			return math.Exp(log)
		}
	}
}

// gamma draws from a gamma distribution whose shape is at least 1, by the method of Marsaglia and Tsang (2000): a normal draw is
// bent into almost the right form, and the little that is wrong is rejected.
func gamma(random *rand.Rand, shape, scale float64) float64 {
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := random.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if u := random.Float64(); math.Log(u) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v * scale
		}
	}
}

const (
	halfHour  = 30 * time.Minute
	halfHours = 48
)

// day turns time that runs evenly into time in which many jobs come by day and few by night.
type day struct {
	weights [halfHours]float64 // how many jobs come in a half hour, beside the mean
	at      int                // half hours since the beginning
	spent   float64            // of the present one's weight
}

func newDay() *day {
	d, sum := &day{}, 0.0
	for i := cycleStart; i < cycleStart+halfHours; i++ {
		w := cycleMass(float64(i)-0.5, float64(i)+0.5)
		d.weights[(i-1)%halfHours] = w
		sum += w
	}
	for i := range d.weights {
		d.weights[i] *= halfHours / sum
	}
	return d
}

// cycleMass is the part of a gamma distribution between two points, but for a factor, by Simpson's rule.
func cycleMass(from, to float64) float64 {
	const steps = 16
	density := func(x float64) float64 { return math.Exp((cycleShape-1)*math.Log(x) - x/cycleScale) }
	width := (to - from) / steps
	sum := density(from) + density(to)
	for i := 1; i < steps; i++ {
		sum += float64(2+2*(i%2)) * density(from+float64(i)*width)
	}
	return sum * width / 3
}

// pass goes on by seconds of even time and returns how much time that is on this day.
func (d *day) pass(seconds float64) time.Duration {
	before := d.now()
	d.spent += seconds / halfHour.Seconds()
	for d.spent >= d.weights[d.at%halfHours] {
		d.spent -= d.weights[d.at%halfHours]
		d.at++
	}
	return (d.now() - before).Round(time.Second)
}

func (d *day) now() time.Duration {
	part := d.spent / d.weights[d.at%halfHours]
	return time.Duration(d.at)*halfHour + time.Duration(part*float64(halfHour))
}
