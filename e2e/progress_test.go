package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	hodei "github.com/hodei-jobs/hodei/clients/go"
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

// programs say who they are, how far they are, and what must not be seen, each with the client of its language.
var programs = map[string]struct{ file, text, run string }{
	"go": {"main.go", `package main

import (
	"context"
	"fmt"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

func main() {
	job, err := hodei.Current()
	if err == nil {
		_, err = job.Mask(context.Background(), "made", []byte("sesame-open-up"))
	}
	if err == nil {
		err = job.Progress(context.Background(), 0.5, "half of sesame-open-up")
	}
	fmt.Println(job.ID, job.Attempt, job.Step, "sesame-open-up", err)
}
`, `cd "$ROOT" && go build -o "$DIR/program" "$DIR/main.go" && "$DIR/program"`},
	"python": {"main.py", `import hodei

job = hodei.current()
job.mask("sesame-open-up", name="made")
job.progress(0.5, "half of sesame-open-up")
print(job.job_id, job.attempt, job.step, "sesame-open-up", "<nil>")
`, `PYTHONPATH="$ROOT/clients/python/src" "$ROOT/clients/python/.venv/bin/python" "$DIR/main.py"`},
	"typescript": {"main.ts", `import { current } from "@hodei/client/node";

async function main() {
  const job = current();
  await job.mask("sesame-open-up", "made");
  await job.progress(0.5, "half of sesame-open-up");
  console.log(job.jobId, job.attempt, job.step, "sesame-open-up", "<nil>");
}
void main();
`, `cd "$ROOT/clients/typescript" && node_modules/.bin/esbuild --log-level=error --bundle --platform=node --format=cjs \
		--alias:@hodei/client/node=./src/node.ts --outfile="$DIR/main.js" "$DIR/main.ts" && node "$DIR/main.js"`},
}

func TestProgramsInJobsReachTheirAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	goPath, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	w.agent("w1")
	for language, program := range programs {
		t.Run(language, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, program.file), []byte(program.text), 0o600); err != nil {
				t.Fatal(err)
			}
			spec := shellJob(program.run)
			spec.Steps[0].Name = "it"
			modules, cache, _ := strings.Cut(strings.TrimSpace(string(goPath)), "\n")
			spec.Env = map[string]string{"ROOT": root, "DIR": dir, "GOMODCACHE": modules, "GOCACHE": cache, "GOTOOLCHAIN": os.Getenv("GOTOOLCHAIN")}
			c := w.client(w.url)
			job, err := c.Run(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			if p := job.GetProgress(); p.GetFraction() != 0.5 || p.GetMessage() != "half of ****" || job.GetMasked()["made"] == 0 {
				t.Errorf("the job has the progress %v, and masked %v", p, job.GetMasked())
			}
			for line, err := range c.Logs(t.Context(), job.GetId(), hodei.LogOptions{Follow: true}) {
				if want := job.GetId() + " 1 it **** <nil>"; err != nil || line.Text() != want {
					t.Errorf("it printed %q %v, want %q", line.Text(), err, want)
				}
			}
		})
	}
}
