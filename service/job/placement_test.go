package job_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
)

func TestPlacementsOfSpecs(t *testing.T) {
	t.Parallel()
	given := &job.Placement{
		Affinities:  []job.Affinity{{constraint("zone", job.OperatorIn, "a"), -100}, {constraint("gpu", job.OperatorExists), 100}},
		Spread:      "zone",
		Apart:       "hostname",
		Tolerations: []string{"batch", "spot/eu.1"},
		Concurrency: &job.Concurrency{Key: "deploy"},
		Gang:        &job.Gang{Name: "ring", Size: 1},
	}
	before := *given.Concurrency
	j, err := job.New(job.ID{1}, spec(func(s *job.Spec) { s.Placement = given }), start)
	if err != nil {
		t.Fatal(err)
	}
	want := *given
	want.Concurrency = &job.Concurrency{Key: "deploy", Limit: 1, Policy: job.ConcurrencyQueue}
	if !reflect.DeepEqual(*j.Spec.Placement, want) {
		t.Errorf("got %+v, want %+v", j.Spec.Placement, want)
	}
	if *given.Concurrency != before {
		t.Error("what was given was changed")
	}
	full := &job.Concurrency{Key: "k", Limit: 7, Policy: job.ConcurrencyCancelRunning}
	if j, err = job.New(job.ID{1}, spec(func(s *job.Spec) { s.Placement = &job.Placement{Concurrency: full} }), start); err != nil || *j.Spec.Placement.Concurrency != *full {
		t.Errorf("got %+v, %v", j.Spec, err)
	}
	// One that asks for nothing is none, so that such jobs are alike.
	if j, err = job.New(job.ID{1}, spec(func(s *job.Spec) { s.Placement = &job.Placement{Tolerations: []string{}} }), start); err != nil || j.Spec.Placement != nil {
		t.Errorf("got %+v, %v", j.Spec, err)
	}
}

func TestPlacementsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	exists := constraint("gpu", job.OperatorExists)
	for want, p := range map[string]job.Placement{
		"affinities: 33 of them":                {Affinities: make([]job.Affinity, 33)},
		"affinities[1].weight: 0":               {Affinities: []job.Affinity{{exists, 1}, {exists, 0}}},
		"affinities[0].weight: 101":             {Affinities: []job.Affinity{{exists, 101}}},
		"affinities[0].weight: -101":            {Affinities: []job.Affinity{{exists, -101}}},
		"affinities[0].constraint on label":     {Affinities: []job.Affinity{{Weight: 1}}},
		"spread: \"-zone\"":                     {Spread: "-zone"},
		"apart: \"a b\"":                        {Apart: "a b"},
		"tolerations: 33 of them":               {Tolerations: make([]string, 33)},
		"tolerations[1]: \"\"":                  {Tolerations: []string{"ok", ""}},
		"concurrency.key: \"\"":                 {Concurrency: &job.Concurrency{}},
		"concurrency.key: \"\\x00\"":            {Concurrency: &job.Concurrency{Key: "\x00"}},
		"must be text of 1 to 256 bytes":        {Concurrency: &job.Concurrency{Key: strings.Repeat("k", 257)}},
		"concurrency.limit: -1":                 {Concurrency: &job.Concurrency{Key: "k", Limit: -1}},
		"concurrency.policy: use QUEUE, LATEST": {Concurrency: &job.Concurrency{Key: "k", Policy: 4}},
		"gang: \"\" of 2 jobs":                  {Gang: &job.Gang{Size: 2}},
		"gang: \"g\" of 0 jobs":                 {Gang: &job.Gang{Name: "g"}},
		"gang: \"g\" of 1025 jobs":              {Gang: &job.Gang{Name: "g", Size: 1025}},
	} {
		_, err := job.New(job.ID{1}, spec(func(s *job.Spec) { s.Placement = &p }), start)
		if job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Whatever a spec has makes it larger.
func TestBytesCountEverything(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	for name, edit := range map[string]func(*job.Spec){
		"name":       func(s *job.Spec) { s.Name = long },
		"env":        func(s *job.Spec) { s.Env = map[string]string{"A": long} },
		"constraint": func(s *job.Spec) { s.Constraints = []job.Constraint{constraint("l", job.OperatorIn, long)} },
		"affinity": func(s *job.Spec) {
			s.Placement = &job.Placement{Affinities: []job.Affinity{{constraint(long, 1, "v"), 1}}}
		},
		"spread":      func(s *job.Spec) { s.Placement = &job.Placement{Spread: long} },
		"apart":       func(s *job.Spec) { s.Placement = &job.Placement{Apart: long} },
		"toleration":  func(s *job.Spec) { s.Placement = &job.Placement{Tolerations: []string{long}} },
		"concurrency": func(s *job.Spec) { s.Placement = &job.Placement{Concurrency: &job.Concurrency{Key: long}} },
		"gang":        func(s *job.Spec) { s.Placement = &job.Placement{Gang: &job.Gang{Name: long}} },
	} {
		small, large := spec(nil), spec(edit)
		if grown := large.Bytes() - small.Bytes(); grown < 1000 || grown > 1400 {
			t.Errorf("%s of 1000 bytes made the spec larger by %d", name, grown)
		}
	}
}
