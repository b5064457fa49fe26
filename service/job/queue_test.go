package job_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

func TestSettingsOfQueues(t *testing.T) {
	t.Parallel()
	q := job.DefaultQueueSettings("ns", "q")
	if err := q.Validate(); err != nil || q.Weight != 1 || q.Ageing != time.Hour || q.Scoring != job.DefaultScoring {
		t.Fatalf("the defaults are %+v, %v", q, err)
	}
	for want, edit := range map[string]func(*job.Queue){
		"": func(q *job.Queue) {
			q.Weight, q.Band, q.Ageing, q.Scoring = 1_000_000, -1000, 0, job.Scoring{Load: 10_000}
		},
		"namespace: \"A\"":        func(q *job.Queue) { q.Namespace = "A" },
		"name: \"\"":              func(q *job.Queue) { q.Name = "" },
		"parent: \"a_b\"":         func(q *job.Queue) { q.Parent = "a_b" },
		"cannot be its own":       func(q *job.Queue) { q.Parent = "q" },
		"weight: 0":               func(q *job.Queue) { q.Weight = 0 },
		"to let nothing start":    func(q *job.Queue) { q.Weight = -1 },
		"weight: 1000001":         func(q *job.Queue) { q.Weight = 1_000_001 },
		"band: 1001":              func(q *job.Queue) { q.Band = 1001 },
		"band: -1001":             func(q *job.Queue) { q.Band = -1001 },
		"ageing: -1ns":            func(q *job.Queue) { q.Ageing = -1 },
		"at most 8760h0m0s":       func(q *job.Queue) { q.Ageing = 366 * 24 * time.Hour },
		"scoring: weights must":   func(q *job.Queue) { q.Scoring.Load = -1 },
		"from 0 to 10000":         func(q *job.Queue) { q.Scoring.Affinity = 10_001 },
		"scoring: weights":        func(q *job.Queue) { q.Scoring.Price = -5 },
		"limits: none may be neg": func(q *job.Queue) { q.Limits.Running = -1 },
		"0 means any amount":      func(q *job.Queue) { q.Limits.StartsPerMinute = -1 },
		"limits: none may be":     func(q *job.Queue) { q.Limits.MilliCPU = -1 },
		"limits: none":            func(q *job.Queue) { q.Limits.MemoryMiB = -1 },
	} {
		changed := q
		edit(&changed)
		err := changed.Validate()
		if want == "" && err != nil || want != "" && (job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", changed, err, want)
		}
	}
}

func TestSettingsOfNamespaces(t *testing.T) {
	t.Parallel()
	for want, n := range map[string]job.Namespace{
		"":                     job.DefaultNamespaceSettings("a"),
		"namespace: \"\"":      job.DefaultNamespaceSettings(""),
		"weight: 0":            {Name: "a"},
		"limits: none may":     {Name: "a", Weight: 1, Limits: job.Limits{MemoryMiB: -1}},
		"namespace: \"a.b\"":   {Name: "a.b", Weight: 1},
		"default queue: \"B\"": {Name: "a", Weight: 1, DefaultQueue: "B"},
	} {
		err := n.Validate()
		if want == "" && err != nil || want != "" && (job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", n, err, want)
		}
	}
}

func TestParentsOfQueues(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, queues, want string }{
		{"none", "", ""},
		{"no parents", "a b c", ""},
		{"a tree", "a b:a c:a d:b", ""},
		{"a parent that comes later", "c:b b:a a", ""},
		{"a long line", "a b:a c:b d:c e:d f:e", ""},
		{"one that is not there", "a b:x", `"b" is to be under "x", which is not there`},
		{"itself", "a:a", `"a" would be under itself`},
		{"two of each other", "a:b b:a", `"a" would be under itself`},
		{"three in a circle", "a:c b:a c:b", `"a" would be under itself`},
		{"under a circle", "d:a a:b b:a", "would be under itself"},
		{"a circle beside a tree", "a b:a c:d d:c", `"c" would be under itself`},
	} {
		var queues []job.Queue
		for item := range strings.FieldsSeq(tc.queues) {
			name, parent, _ := strings.Cut(item, ":")
			q := job.DefaultQueueSettings("ns", name)
			q.Parent = parent
			queues = append(queues, q)
		}
		err := job.CheckParents(queues)
		if tc.want == "" && err != nil || tc.want != "" && (job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s (%s): %v, want %q", tc.name, tc.queues, err, tc.want)
		}
	}
}
