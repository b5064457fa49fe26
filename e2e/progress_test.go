package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// Jobs say how far they are: the latest word counts, secrets are masked in it, and it is kept with the job.
func TestJobsSayHowFarTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	w.setSecret("TOKEN", secretValue)
	agent := program(t, "hodei-agent")
	spec := shellJob(fmt.Sprintf(`%[1]s progress 0.1 first && %[1]s progress 0.25 "loading $TOKEN" && while ! [ -e go ]; do sleep 0.01; done; %[1]s progress 0.5 half
%[1]s progress 2 no; %[1]s progress much; %[1]s progress 1 done`, agent))
	spec.Steps[0].Secrets = []*hodeiv1.SecretRef{{Name: "TOKEN"}}
	spec.Steps[0].WorkingDir = t.TempDir()
	c := w.client(w.url)
	job, err := c.Submit(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	for j, err := range c.Watch(t.Context(), &hodeiv1.JobFilter{Ids: []string{job.GetId()}}) {
		if err != nil {
			t.Fatal(err)
		}
		if j.GetProgress().GetFraction() == 0.25 {
			if got := j.GetProgress().GetMessage(); got != "loading ****" {
				t.Errorf("the progress is %q", got)
			}
			break
		}
	}
	if err := os.WriteFile(filepath.Join(spec.GetSteps()[0].GetWorkingDir(), "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, err := c.Ended(t.Context(), job.GetId())
	if err != nil {
		t.Fatal(err)
	}
	if p := ended.GetProgress(); p.GetFraction() != 1 || p.GetMessage() != "done" {
		t.Errorf("at its end the job has the progress %v", p)
	}
	w.server.kill()
	w.restart()
	if kept, err := c.Get(t.Context(), job.GetId()); err != nil || kept.GetProgress().GetMessage() != "done" {
		t.Errorf("after a restart the job has the progress %v: %v", kept.GetProgress(), err)
	}
}
