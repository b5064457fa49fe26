package job_test

import (
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
)

func TestWhomAWorkerServes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		queues           []string
		namespace, queue string
		want             bool
	}{
		{nil, "a", "q", true},
		{[]string{"a/q"}, "a", "q", true},
		{[]string{"a/q"}, "a", "qq", false},
		{[]string{"a/q"}, "a", "", false},
		{[]string{"a/q"}, "b", "q", false},
		{[]string{"a/*"}, "a", "anything", true},
		{[]string{"a/*"}, "ab", "q", false},
		{[]string{"b/x", "a/*"}, "a", "q", true},
		{[]string{"*/*"}, "a", "q", false}, // no pattern but for the queues of one namespace
		{[]string{"a/q/r"}, "a", "q", false},
		{[]string{"a"}, "a", "q", false},
		{[]string{""}, "", "", true},
		{[]string{""}, "a", "q", false}, // what cannot be understood serves nobody
	} {
		w := job.Worker{Queues: tc.queues}
		if got := w.Serves(tc.namespace, tc.queue); got != tc.want {
			t.Errorf("%q serves %s/%s: %t", tc.queues, tc.namespace, tc.queue, got)
		}
	}
}
