package simulator

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// record is a job as a line of a workload has it.
type record struct {
	Submit    float64 `json:"submit_seconds"`
	Runtime   float64 `json:"runtime_seconds"`
	Limit     float64 `json:"limit_seconds,omitempty"` // 0: as long as the runtime
	CPUs      float64 `json:"cpus,omitempty"`
	MemoryMiB int32   `json:"memory_mib,omitempty"`
	Namespace string  `json:"namespace,omitempty"`
	Queue     string  `json:"queue,omitempty"`
	Priority  int32   `json:"priority,omitempty"`
	Class     string  `json:"class,omitempty"`
}

// ReadLines reads a workload of JSON objects, one job a line:
//
//	{"submit_seconds": 12.5, "runtime_seconds": 300, "limit_seconds": 3600, "cpus": 2, "memory_mib": 512, "namespace": "ci",
//	 "queue": "builds", "priority": 5, "class": "build"}
//
// All but the first two may be left out. Without a limit the runtime is the limit.
func ReadLines(r io.Reader) ([]Job, error) {
	var jobs []Job
	err := eachLine(r, func(line string) error {
		if strings.TrimSpace(line) == "" {
			return nil
		}
		if len(jobs) == MaxJobs {
			return fmt.Errorf("there are more than %d jobs; take a part of them", MaxJobs)
		}
		j, err := parseLine(line)
		j.Number = len(jobs) + 1
		jobs = append(jobs, j)
		return err
	})
	if err != nil {
		return nil, err
	}
	sortJobs(jobs)
	return jobs, nil
}

func parseLine(line string) (Job, error) {
	var r record
	decoder := json.NewDecoder(bytes.NewReader([]byte(line)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Job{}, fmt.Errorf("%w; a job is a JSON object with submit_seconds, runtime_seconds, limit_seconds, cpus, memory_mib, "+
			"namespace, queue, priority and class", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Job{}, errors.New("there is more after the job; write one job a line")
	}
	if r.Submit < 0 || r.Runtime < 0 || r.Limit < 0 {
		return Job{}, errors.New("a time is negative; times are in seconds from the beginning")
	}
	if r.CPUs < 0 || r.CPUs > maxCPUs {
		return Job{}, fmt.Errorf("it asks for %v CPUs; that must be from 0 to %d", r.CPUs, maxCPUs)
	}
	j := Job{
		Submit: seconds(r.Submit), Runtime: seconds(r.Runtime), Limit: seconds(cmp.Or(r.Limit, r.Runtime)),
		MilliCPU: int32(math.Round(r.CPUs * 1000)), MemoryMiB: r.MemoryMiB, Priority: r.Priority, Class: r.Class,
		Namespace: cmp.Or(r.Namespace, job.DefaultNamespace), Queue: cmp.Or(r.Queue, job.DefaultQueue),
	}
	return j, j.validate()
}
