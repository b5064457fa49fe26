package hodei_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func TestSpecsInShortAndLongForm(t *testing.T) {
	t.Parallel()
	short := `
name: build
env: {CI: true, N: 007}
resources: {cpu: 1.5, memory: 2Gi, extras: {gpu: 1}}
constraints: [{label: os, operator: in, values: [linux]}]
timeout: 1h30m
steps:
- name: one
  command: [echo, 010, yes]
- run: |
    make
    make test
`
	long := `{
  "name": "build", "env": {"CI": "true", "N": "007"},
  "resources": {"milli_cpu": 1500, "memoryMib": 2048, "extras": {"gpu": 1}},
  "constraints": [{"label": "os", "operator": "CONSTRAINT_OPERATOR_IN", "values": ["linux"]}],
  "timeout": "5400s",
  "steps": [{"name": "one", "command": {"argv": ["echo", "010", "yes"]}}, {"script": {"text": "make\nmake test\n"}}]
}`
	want := &hodeiv1.JobSpec{
		Name: "build", Env: map[string]string{"CI": "true", "N": "007"},
		Resources:   &hodeiv1.Resources{MilliCpu: 1500, MemoryMib: 2048, Extras: map[string]int32{"gpu": 1}},
		Constraints: []*hodeiv1.Constraint{{Label: "os", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_IN, Values: []string{"linux"}}},
		Timeout:     durationpb.New(90 * time.Minute),
		Steps: []*hodeiv1.Step{
			{Name: "one", Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: []string{"echo", "010", "yes"}}}},
			{Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: "make\nmake test\n"}}},
		},
	}
	for _, text := range []string{short, long} {
		got, err := hodei.ParseSpecs([]byte(text))
		if err != nil || len(got) != 1 || !proto.Equal(got[0], want) {
			t.Errorf("got %v, %v", got, err)
		}
	}
	many, err := hodei.ParseSpecs([]byte(short + "---\n" + short + "---\n"))
	if err != nil || len(many) != 2 {
		t.Errorf("two documents gave %d, %v", len(many), err)
	}
}

func TestSpecErrorsNameTheLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"name: x\nstepz: []":         `line 2: JobSpec has no field "stepz"; did you mean "steps"?`,
		"steps:\n- comand: [x]":      `line 2: Step has no field "comand"; did you mean "command"?`,
		"zzz: 1":                     "its fields are",
		"name: x\nname: y":           "line 2",
		"steps: 1":                   "line 1: steps must be a list",
		"env: [x]":                   "line 1: env must be a mapping",
		"name: [x]":                  "line 1: name must be a single value",
		"- x":                        "line 1: JobSpec must be a mapping",
		"timeout: soon":              `line 1: "soon" is not a duration`,
		"resources:\n  cpu: lots":    "line 2: cpu",
		"resources:\n  memory: lots": "line 2: \"lots\" is not an amount of memory",
		"steps: [{command: [x]}]\nmax_attempts: many": "max_attempts",
		"constraints:\n- mem>=1":                      "line 2: constraint \"mem>=1\"",
		"constraints: [!gpu, os]":                     "line 1: write a constraint that begins with '!' in quotes",
		"constraints:\n- !gpu":                        "line 2: write a constraint that begins with",
		"a: b: c":                                     "neither YAML nor JSON",
		"":                                            "empty",
		strings.Repeat("x", hodei.MaxSpecBytes+1):       "limit",
		"a: &a [x, x]\nb: &b [*a, *a]\nsteps: [*b, *b]": "line 1",
	} {
		if _, err := hodei.ParseSpecs([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q gave %v, want %q", text, err, want)
		}
	}
}

func TestConstraintsInShort(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"os=linux":       "os IN linux",
		"zone=a|b c":     "zone IN a|b c",
		"os=":            "os IN ",
		"arch!=arm64|x":  "arch NOT_IN arm64|x",
		"gpu":            "gpu EXISTS ",
		"!a/b.gpu":       "a/b.gpu NOT_EXISTS ",
		"mem>16":         "mem GREATER 16",
		"mem< 0.5":       "mem LESS 0.5",
		"v~>=1.2, <2":    "v VERSION >=1.2, <2",
		"v~=1.2":         "v VERSION =1.2",
		"url=http://x=1": "url IN http://x=1",
	} {
		got, err := hodei.ParseConstraint(text)
		operator := strings.TrimPrefix(got.GetOperator().String(), "CONSTRAINT_OPERATOR_")
		if all := got.GetLabel() + " " + operator + " " + strings.Join(got.GetValues(), "|"); err != nil || all != want {
			t.Errorf("%q is %q, %v; want %q", text, all, err, want)
		}
	}
	for _, text := range []string{"", "=x", "!", "!a=b", "a!b", "<1", "mem>=1", "mem<=1", "os==linux", "os!==x"} {
		if got, err := hodei.ParseConstraint(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestPlacementsInShortAndLongForm(t *testing.T) {
	t.Parallel()
	short := `
constraints: ["mem>16", !gpu]
affinities: [{constraint: zone=a, weight: -20}]
spread: zone
apart: hostname
tolerations: [batch]
concurrency: deploy
gang: {name: ring, size: 2}
`
	long := `{
  "constraints": [{"label": "mem", "operator": "greater", "values": [16]}, {"label": "gpu", "operator": "CONSTRAINT_OPERATOR_NOT_EXISTS"}],
  "affinities": [{"constraint": {"label": "zone", "operator": "in", "values": ["a"]}, "weight": -20}],
  "spread": "zone", "apart": "hostname", "tolerations": ["batch"], "concurrency": {"key": "deploy"}, "gang": {"name": "ring", "size": 2}
}`
	want := &hodeiv1.JobSpec{
		Constraints: []*hodeiv1.Constraint{
			{Label: "mem", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_GREATER, Values: []string{"16"}},
			{Label: "gpu", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_NOT_EXISTS},
		},
		Affinities: []*hodeiv1.Affinity{{
			Constraint: &hodeiv1.Constraint{Label: "zone", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_IN, Values: []string{"a"}}, Weight: -20,
		}},
		Spread: "zone", Apart: "hostname", Tolerations: []string{"batch"}, Concurrency: &hodeiv1.Concurrency{Key: "deploy"},
		Gang: &hodeiv1.Gang{Name: "ring", Size: 2},
	}
	for _, text := range []string{strings.Replace(short, "!gpu", `"!gpu"`, 1), long} {
		got, err := hodei.ParseSpecs([]byte(text))
		if err != nil || len(got) != 1 || !proto.Equal(got[0], want) {
			t.Errorf("got %v, %v", got, err)
		}
	}
	got, err := hodei.ParseSpecs([]byte("concurrency: {key: k, limit: 2, policy: cancel_running}"))
	if err != nil || got[0].GetConcurrency().GetPolicy() != hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_CANCEL_RUNNING {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int32{"512Mi": 512, "2Gi": 2048, "1.5Gi": 1536, "1G": 954, "1048576": 1, "1": 1, "0": 0, "1Ki": 1, "2GiB": 2048} {
		if got, err := hodei.ParseMemoryMiB(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1Gi", "9999999Ti", "NaN", "1Xi"} {
		if got, err := hodei.ParseMemoryMiB(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func FuzzParseSpecs(f *testing.F) {
	f.Add([]byte("steps:\n- command: [a]\n  env: {A: b}\n"))
	f.Add([]byte(`{"steps": [{"run": "x"}], "timeout": "1s"}`))
	f.Add([]byte("a: &a {<<: *a}"))
	f.Add([]byte("constraints: ['mem>1', a!=b]\nconcurrency: k\naffinities: [{constraint: x, weight: -1}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		specs, err := hodei.ParseSpecs(data)
		if (err == nil) != (len(specs) > 0) {
			t.Fatalf("%d specs and the error %v", len(specs), err)
		}
	})
}
