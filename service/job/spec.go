package job

import (
	"slices"
	"time"
)

// Defaults that New fills in.
const (
	DefaultNamespace = "default"
	DefaultQueue     = "default"
	DefaultTimeout   = 24 * time.Hour
	DefaultGrace     = 10 * time.Second
)

// Spec is what a user asks for. A Spec inside a Job never changes; it may be shared between goroutines.
type Spec struct {
	Name        string
	Namespace   string
	Queue       string
	Labels      map[string]string
	Steps       []Step
	Env         map[string]string
	Resources   Resources
	Constraints []Constraint
	Priority    int32
	Timeout     time.Duration // of one attempt
	MaxAttempts int32
	Backoff     Backoff
	RunAfter    time.Time  // zero: at once
	Placement   *Placement // nil: nothing special
}

// Bytes returns about how much memory the texts of the spec take.
func (s *Spec) Bytes() int {
	n := len(s.Name) + mapBytes(s.Labels) + mapBytes(s.Env)
	for i := range s.Constraints {
		n += s.Constraints[i].bytes()
	}
	for i := range s.Steps {
		step := &s.Steps[i]
		n += 200 + len(step.Name) + len(step.Script) + len(step.WorkingDir) + mapBytes(step.Env)
		for _, arg := range step.Argv {
			n += 16 + len(arg)
		}
		for _, ref := range step.Secrets {
			n += 48 + len(ref.Name) + len(ref.Env)
		}
	}
	return n + s.Placement.bytes()
}

func mapBytes(m map[string]string) int {
	n := 0
	for key, value := range m {
		n += 48 + len(key) + len(value)
	}
	return n
}

// Step is one process of a job: Argv, or Script for Shell.
type Step struct {
	Name       string
	Argv       []string
	Script     string
	Shell      []string // the script is appended as the last argument
	Env        map[string]string
	WorkingDir string        // empty: a folder made for the attempt
	Timeout    time.Duration // 0: none of its own
	Grace      time.Duration // between SIGTERM and SIGKILL
	Secrets    []SecretRef
	Terminal   *Terminal // nil: none
}

// SecretRef gives a step a secret of the job's namespace. The value is never part of a spec.
type SecretRef struct {
	Name string
	Env  string // the variable that has the value, or the path of the file
	File bool
}

// Terminal is the size in characters of the terminal that a step runs on.
type Terminal struct{ Columns, Rows int32 }

// Defaults of Terminal.
const (
	DefaultColumns = 80
	DefaultRows    = 24
)

// WantsSecrets reports whether a step gets a secret.
func (s *Spec) WantsSecrets() bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool { return len(step.Secrets) > 0 })
}

// SecretNames returns the names of the secrets that the steps get, each once, in order; nil when there are none.
func (s *Spec) SecretNames() []string {
	var names []string
	for i := range s.Steps {
		for _, ref := range s.Steps[i].Secrets {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Command returns the program and arguments that run the step, whichever way it was written.
func (s *Step) Command() []string {
	if s.Script == "" {
		return s.Argv
	}
	argv := make([]string, 0, len(s.Shell)+1)
	return append(append(argv, s.Shell...), s.Script)
}

// Backoff is the wait between attempts: Initial * Factor^(attempt-1), at most Max.
type Backoff struct {
	Initial time.Duration
	Max     time.Duration
	Factor  float64
}

// Defaults of Backoff.
const (
	DefaultBackoffInitial = time.Second
	DefaultBackoffMax     = 5 * time.Minute
	DefaultBackoffFactor  = 2
)

// Delay returns how long to wait after the given attempt (counted from 1) failed.
func (b Backoff) Delay(attempt int32) time.Duration {
	delay := float64(b.Initial)
	for range attempt - 1 {
		delay *= b.Factor
		if delay >= float64(b.Max) {
			return b.Max
		}
	}
	return min(time.Duration(delay), b.Max)
}
