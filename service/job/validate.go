package job

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits that a Spec must keep.
const (
	MaxSteps    = 100
	MaxAttempts = 100
	MaxPriority = 1000
)

// normalized returns the spec with defaults filled in, or the first thing that is wrong with it.
// The original is not changed; maps and slices that need no change are shared.
func (s Spec) normalized() (*Spec, error) {
	s.Namespace = cmp.Or(s.Namespace, DefaultNamespace)
	s.Queue = cmp.Or(s.Queue, DefaultQueue)
	s.Timeout = cmp.Or(s.Timeout, DefaultTimeout)
	s.MaxAttempts = cmp.Or(s.MaxAttempts, 1)
	s.Backoff = Backoff{
		Initial: cmp.Or(s.Backoff.Initial, DefaultBackoffInitial),
		Max:     cmp.Or(s.Backoff.Max, DefaultBackoffMax),
		Factor:  cmp.Or(s.Backoff.Factor, DefaultBackoffFactor),
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	steps, err := normalizedSteps(s.Steps)
	if err != nil {
		return nil, err
	}
	s.Steps = steps
	return &s, nil
}

func (s *Spec) validate() error {
	switch {
	case len(s.Steps) == 0:
		return invalid("steps: a job needs at least one step; give a command after --, or steps in the file")
	case len(s.Steps) > MaxSteps:
		return invalid("steps: %d steps; at most %d are allowed", len(s.Steps), MaxSteps)
	case s.MaxAttempts < 0 || s.MaxAttempts > MaxAttempts:
		return invalid("max_attempts: %d; it must be from 1 to %d", s.MaxAttempts, MaxAttempts)
	case s.Priority < -MaxPriority || s.Priority > MaxPriority:
		return invalid("priority: %d; it must be from -%d to %d", s.Priority, MaxPriority, MaxPriority)
	case s.Timeout < 0:
		return invalid("timeout: %v; it must be positive", s.Timeout)
	case s.Backoff.Initial < 0 || s.Backoff.Max < 0 || !(s.Backoff.Factor >= 1):
		return invalid("backoff: initial and max must not be negative, and factor must be at least 1")
	}
	if err := validateEnv("env", s.Env); err != nil {
		return err
	}
	if err := s.Resources.validate(); err != nil {
		return err
	}
	for i := range s.Constraints {
		if err := s.Constraints[i].validate(i); err != nil {
			return err
		}
	}
	return nil
}

// validate checks that the operator has the values it needs, because a constraint that can never hold is a typing error.
func (c *Constraint) validate(i int) error {
	switch c.Operator {
	case OperatorIn, OperatorNotIn:
		if len(c.Values) == 0 {
			return invalid("constraints[%d]: IN and NOT_IN on label %q need at least one value", i, c.Label)
		}
	case OperatorExists, OperatorNotExists:
		if len(c.Values) != 0 {
			return invalid("constraints[%d]: EXISTS and NOT_EXISTS on label %q take no values", i, c.Label)
		}
	default:
		return invalid("constraints[%d] on label %q has no operator; use IN, NOT_IN, EXISTS or NOT_EXISTS", i, c.Label)
	}
	if c.Label == "" {
		return invalid("constraints[%d] has no label; name the worker's label that it is about", i)
	}
	return nil
}

func normalizedSteps(steps []Step) ([]Step, error) {
	out := slices.Clone(steps)
	seen := make(map[string]int, len(out))
	for i := range out {
		step := &out[i]
		step.Name = cmp.Or(step.Name, fmt.Sprintf("step-%d", i+1))
		step.Grace = cmp.Or(step.Grace, DefaultGrace)
		if step.Script != "" && len(step.Shell) == 0 {
			step.Shell = []string{"sh", "-e", "-c"}
		}
		if first, ok := seen[step.Name]; ok {
			return nil, invalid("steps[%d].name: %q is the name of steps[%d] too; names must differ", i, step.Name, first)
		}
		seen[step.Name] = i
		if err := step.validate(fmt.Sprintf("steps[%d]", i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Step) validate(path string) error {
	switch {
	case len(s.Argv) == 0 && s.Script == "":
		return invalid("%s (%q) has neither a command nor a script; give it one", path, s.Name)
	case len(s.Argv) != 0 && s.Script != "":
		return invalid("%s (%q) has both a command and a script; keep one", path, s.Name)
	case len(s.Argv) != 0 && s.Argv[0] == "":
		return invalid("%s.command.argv[0]: the program's name is empty", path)
	case s.Timeout < 0 || s.Grace < 0:
		return invalid("%s: timeout and grace must not be negative", path)
	case strings.ContainsRune(s.WorkingDir, 0):
		return invalid("%s.working_dir contains a NUL byte", path)
	}
	for i, arg := range s.Command() {
		if strings.ContainsRune(arg, 0) {
			return invalid("%s: argument %d contains a NUL byte, which no program can be given; remove it", path, i)
		}
	}
	return validateEnv(path+".env", s.Env)
}

func validateEnv(path string, env map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return invalid("%s: %q is no name for a variable; it must not be empty or contain '=' or NUL", path, name)
		}
		if strings.ContainsRune(env[name], 0) {
			return invalid("%s[%q]: the value contains a NUL byte", path, name)
		}
	}
	return nil
}
