package simulator

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// The columns of the Standard Workload Format, version 2.2, of the Parallel Workloads Archive, as far as they matter here.
const (
	swfNumber    = 0
	swfSubmit    = 1 // seconds
	swfRuntime   = 3 // seconds
	swfAllocated = 4 // processors
	swfUsed      = 6 // kilobytes for each processor
	swfRequested = 7 // processors
	swfLimit     = 8 // seconds
	swfMemory    = 9 // kilobytes for each processor, requested
	swfGroup     = 12
	swfQueue     = 14
	swfColumns   = 18
)

// maxLine bounds a line of a workload, in bytes.
const maxLine = 64 << 10

// ReadSWF reads a recorded workload in the Standard Workload Format. A processor becomes a CPU, a group a namespace and a queue a
// queue. Jobs that never ran, or whose size nobody knows, are left out and counted. Records know no limit for some jobs, and
// some jobs ran a little longer than theirs: the runtime is the limit then, rounded up to whole minutes.
func ReadSWF(r io.Reader) (jobs []Job, skipped int, err error) {
	err = eachLine(r, func(line string) error {
		if line = strings.TrimSpace(line); line == "" || line[0] == ';' {
			return nil
		}
		values, err := swfValues(line)
		if err != nil {
			return err
		}
		j, ok := swfJob(values)
		if !ok {
			skipped++
			return nil
		}
		if len(jobs) == MaxJobs {
			return fmt.Errorf("there are more than %d jobs; take a part of them", MaxJobs)
		}
		jobs = append(jobs, j)
		return j.validate()
	})
	if err != nil {
		return nil, 0, err
	}
	sortJobs(jobs)
	return jobs, skipped, nil
}

// eachLine calls take with every line, and names the line in its error.
func eachLine(r io.Reader, take func(string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		if err := take(lines.Text()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d bytes; is this a workload?", n+1, maxLine)
	}
	return lines.Err()
}

func swfValues(line string) (values [swfColumns]float64, err error) {
	fields := strings.Fields(line)
	if len(fields) != swfColumns {
		return values, fmt.Errorf("%d fields instead of %d; -1 stands for what is not known", len(fields), swfColumns)
	}
	for i, f := range fields {
		values[i], err = strconv.ParseFloat(f, 64)
		if err != nil || math.IsNaN(values[i]) || math.Abs(values[i]) > 1e12 {
			return values, fmt.Errorf("field %d is %.40q, which is no number of a workload", i+1, f)
		}
	}
	return values, nil
}

// swfJob makes a job of a line; false when it is none that can be run again.
func swfJob(v [swfColumns]float64) (Job, bool) {
	size := v[swfAllocated]
	if size <= 0 {
		size = v[swfRequested]
	}
	if v[swfSubmit] < 0 || v[swfRuntime] < 0 || size < 1 || size > maxCPUs {
		return Job{}, false
	}
	j := Job{
		Number: int(v[swfNumber]), Submit: seconds(v[swfSubmit]), Runtime: seconds(v[swfRuntime]), Limit: seconds(v[swfLimit]),
		MilliCPU: int32(math.Round(size)) * 1000, Namespace: nameOf("group", v[swfGroup], job.DefaultNamespace),
		Queue: nameOf("queue", v[swfQueue], job.DefaultQueue),
	}
	if j.Limit < j.Runtime {
		j.Limit = (j.Runtime + time.Minute - 1) / time.Minute * time.Minute
	}
	memory := v[swfMemory]
	if memory <= 0 {
		memory = v[swfUsed]
	}
	j.MemoryMiB = int32(min(max(math.Ceil(memory*math.Round(size)/1024), 0), math.MaxInt32))
	return j, true
}

// seconds makes a Duration; what is too long for one becomes the longest.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(math.Round(max(s, 0) * float64(time.Second)))
}

func nameOf(kind string, number float64, unknown string) string {
	if number < 0 {
		return unknown
	}
	return fmt.Sprintf("%s-%d", kind, int64(number))
}
