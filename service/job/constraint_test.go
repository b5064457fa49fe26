package job_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

func constraint(label string, operator job.Operator, values ...string) job.Constraint {
	return job.Constraint{Label: label, Operator: operator, Values: values}
}

func TestConstraintsOnNumbersAndVersions(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"mem": "64", "price": "0.25", "cuda": "12.4", "word": "large", "endless": "Inf", "none": "NaN", "empty": ""}
	for _, tc := range []struct {
		c    job.Constraint
		want bool
	}{
		{constraint("mem", job.OperatorGreater, "63.9"), true},
		{constraint("mem", job.OperatorGreater, "64"), false},
		{constraint("mem", job.OperatorGreater, "-1"), true},
		{constraint("mem", job.OperatorLess, "64"), false},
		{constraint("mem", job.OperatorLess, "1e3"), true},
		{constraint("price", job.OperatorLess, ".3"), true},
		{constraint("word", job.OperatorLess, "1"), false},
		{constraint("word", job.OperatorGreater, "1"), false},
		{constraint("none", job.OperatorGreater, "1"), false},
		{constraint("endless", job.OperatorGreater, "1"), false},
		{constraint("empty", job.OperatorLess, "1"), false},
		{constraint("gone", job.OperatorLess, "1"), false},
		{constraint("gone", job.OperatorGreater, "1"), false},
		{constraint("cuda", job.OperatorVersion, ">=12.2, <13"), true},
		{constraint("cuda", job.OperatorVersion, "^11"), false},
		{constraint("word", job.OperatorVersion, ">=0"), false},
		{constraint("gone", job.OperatorVersion, ">=0"), false},
		// What a damaged record may hold is none that holds, and no reason to stop.
		{job.Constraint{Label: "mem", Operator: job.OperatorLess}, false},
		{job.Constraint{Label: "mem", Operator: job.OperatorVersion}, false},
		{job.Constraint{Label: "mem", Operator: 99}, false},
	} {
		if got := tc.c.Holds(labels); got != tc.want {
			t.Errorf("%s holds: %v", &tc.c, got)
		}
	}
}

func TestConstraintsThatCanNeverHoldAreRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		c    job.Constraint
		want string
	}{
		{constraint("mem", job.OperatorLess), "need one number"},
		{constraint("mem", job.OperatorLess, "1", "2"), "need one number"},
		{constraint("mem", job.OperatorGreater, "much"), "need one number"},
		{constraint("mem", job.OperatorGreater, "=16"), "need one number"},
		{constraint("mem", job.OperatorGreater, "NaN"), "need one number"},
		{constraint("mem", job.OperatorGreater, "Inf"), "need one number"},
		{constraint("mem", job.OperatorLess, "1e999"), "need one number"},
		{constraint("v", job.OperatorVersion), "one range of versions"},
		{constraint("v", job.OperatorVersion, "1", "2"), "one range of versions"},
		{constraint("v", job.OperatorVersion, ">=x"), "one range of versions"},
		{constraint("v", job.OperatorVersion, strings.Repeat(">=1,", 100)+">=1"), "one range of versions"},
		{constraint("v", 8), "has no operator"},
		{constraint("", job.OperatorLess, "1"), "has no label"},
		{constraint("a\x00", job.OperatorExists), "NUL"},
		{constraint("a", job.OperatorIn, "\xff"), "UTF-8"},
		{constraint("a", job.OperatorIn, make([]string, 65)...), "at most 64 values"},
	} {
		for path, edit := range map[string]func(*job.Spec){
			"constraints[0]":           func(s *job.Spec) { s.Constraints = []job.Constraint{tc.c} },
			"affinities[0].constraint": func(s *job.Spec) { s.Placement = &job.Placement{Affinities: []job.Affinity{{tc.c, 1}}} },
		} {
			_, err := job.New(job.ID{1}, spec(edit), start)
			if job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), path) {
				t.Errorf("%s %s: %v, want %q", path, &tc.c, err, tc.want)
			}
		}
	}
}

func TestContradictionsAreNamed(t *testing.T) {
	t.Parallel()
	const ok = ""
	for _, tc := range []struct {
		a, b job.Constraint
		want string
	}{
		{constraint("os", job.OperatorIn, "linux"), constraint("os", job.OperatorIn, "mac"), "os=linux and os=mac"},
		{constraint("os", job.OperatorIn, "linux", "mac"), constraint("os", job.OperatorIn, "mac", "bsd"), ok},
		{constraint("os", job.OperatorIn, "linux"), constraint("arch", job.OperatorIn, "arm64"), ok},
		{constraint("os", job.OperatorIn, "a", "b"), constraint("os", job.OperatorNotIn, "b", "a", "c"), "os=a|b and os!=b|a|c"},
		{constraint("os", job.OperatorIn, "a", "b"), constraint("os", job.OperatorNotIn, "b"), ok},
		{constraint("gpu", job.OperatorExists), constraint("gpu", job.OperatorNotExists), "gpu and !gpu"},
		{constraint("gpu", job.OperatorNotExists), constraint("gpu", job.OperatorIn, "a100"), "!gpu and gpu=a100"},
		{constraint("gpu", job.OperatorNotExists), constraint("gpu", job.OperatorNotIn, "a100"), ok},
		{constraint("gpu", job.OperatorNotExists), constraint("gpu", job.OperatorNotExists), ok},
		{constraint("gpu", job.OperatorNotExists), constraint("gpu", job.OperatorLess, "9"), "!gpu and gpu<9"},
		{constraint("gpu", job.OperatorNotExists), constraint("gpu", job.OperatorVersion, "^1"), "!gpu and gpu~^1"},
		{constraint("mem", job.OperatorLess, "16"), constraint("mem", job.OperatorGreater, "16"), "mem<16 and mem>16"},
		{constraint("mem", job.OperatorGreater, "32"), constraint("mem", job.OperatorLess, "16"), "mem>32 and mem<16"},
		{constraint("mem", job.OperatorGreater, "9"), constraint("mem", job.OperatorLess, "16"), ok},
		{constraint("mem", job.OperatorLess, "1"), constraint("mem", job.OperatorLess, "2"), ok},
		{constraint("mem", job.OperatorIn, "8", "16"), constraint("mem", job.OperatorGreater, "16"), "mem=8|16 and mem>16"},
		{constraint("mem", job.OperatorIn, "8", "17"), constraint("mem", job.OperatorGreater, "16"), ok},
		{constraint("v", job.OperatorIn, "1.9", "x"), constraint("v", job.OperatorVersion, "^2"), "v=1.9|x and v~^2"},
		{constraint("v", job.OperatorExists), constraint("v", job.OperatorVersion, "^2"), ok},
	} {
		_, err := job.New(job.ID{1}, spec(func(s *job.Spec) { s.Constraints = []job.Constraint{tc.a, tc.b} }), start)
		if tc.want == ok && err != nil || tc.want != ok && (job.CodeOf(err) != job.CodeInvalid ||
			!strings.Contains(err.Error(), "constraints[0] and constraints[1]") || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s and %s: %v, want %q", &tc.a, &tc.b, err, tc.want)
		}
		if _, back := job.New(job.ID{1}, spec(func(s *job.Spec) { s.Constraints = []job.Constraint{tc.b, tc.a} }), start); (back == nil) != (err == nil) {
			t.Errorf("%s and %s contradict each other in one order alone: %v, %v", &tc.a, &tc.b, err, back)
		}
	}
}

// What is refused as a contradiction is one: no value of the label, and no worker without it, satisfies both.
func TestWhatContradictsItselfHoldsForNoWorker(t *testing.T) {
	t.Parallel()
	values := []string{"1", "1.5", "2.0.0", "-3", "x", ""}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) job.Constraint {
			operator := job.Operator(rapid.IntRange(1, 7).Draw(t, name))
			c := job.Constraint{Label: "l", Operator: operator}
			switch operator {
			case job.OperatorIn, job.OperatorNotIn:
				c.Values = rapid.SliceOfNDistinct(rapid.SampledFrom(values), 1, 3, rapid.ID).Draw(t, name+" values")
			case job.OperatorLess, job.OperatorGreater:
				c.Values = []string{rapid.SampledFrom([]string{"-3", "0", "1.5", "2"}).Draw(t, name+" number")}
			case job.OperatorVersion:
				c.Values = []string{rapid.SampledFrom([]string{"^1", ">=1.5, <3", "=2"}).Draw(t, name+" range")}
			}
			return c
		}
		pair := []job.Constraint{draw("a"), draw("b")}
		if _, err := job.New(job.ID{1}, spec(func(s *job.Spec) { s.Constraints = pair }), start); err == nil {
			return
		}
		workers := []map[string]string{nil}
		for _, v := range values {
			workers = append(workers, map[string]string{"l": v})
		}
		for _, labels := range workers {
			if pair[0].Holds(labels) && pair[1].Holds(labels) {
				t.Fatalf("%s and %s are refused and hold for %v", &pair[0], &pair[1], labels)
			}
		}
	})
}
