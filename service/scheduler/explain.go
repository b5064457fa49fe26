package scheduler

import (
	"fmt"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// explain says in one sentence why no worker can take the job now, counting every worker under the first filter that
// refuses it.
func explain(spec *job.Spec, workers []*candidate) string {
	if len(workers) == 0 {
		return "no worker has ever connected; start one with `hodei agent`, `hodei token create` shows how"
	}
	var refused [len(filters)][]*candidate
	for _, c := range workers {
		for i, f := range filters {
			if !f.check(spec, c) {
				refused[i] = append(refused[i], c)
				break
			}
		}
	}
	var parts []string
	for i, f := range filters {
		if len(refused[i]) > 0 {
			parts = append(parts, f.explain(spec, refused[i]))
		}
	}
	return fmt.Sprintf("no worker can take it now: %s", strings.Join(parts, "; "))
}
