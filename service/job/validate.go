package job

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits that a Spec must keep.
const (
	MaxSteps    = 100
	MaxAttempts = 100
	MaxPriority = 1000

	MaxTimeout       = 365 * 24 * time.Hour
	MaxBackoffFactor = 100
	MaxConstraints   = 32

	maxName        = 253
	maxLabels      = 64
	maxLabelValue  = 256
	maxEnv         = 512
	maxArgs        = 10_000
	maxScriptBytes = 1 << 20
	maxShell       = 16
	maxPathBytes   = 4096
	maxExtras      = 32
	maxValues      = 64
	maxSecrets     = 64 // of a step
	maxTerminal    = 65_535
	maxGrace       = time.Hour
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
	var err error
	if s.Placement, err = s.Placement.normalized(); err != nil {
		return nil, err
	}
	// A job of one step, as most are, takes one piece of memory.
	memory := new(struct {
		spec Spec
		step [1]Step
	})
	steps, err := normalizedSteps(memory.step[:0], s.Steps)
	if err != nil {
		return nil, err
	}
	for i := range steps {
		if steps[i].Terminal != nil {
			s.Placement = s.Placement.requiring(CapabilityTerminal)
			break
		}
	}
	s.Steps = steps
	memory.spec = s
	return &memory.spec, nil
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
	case s.Timeout < 0 || s.Timeout > MaxTimeout:
		return invalid("timeout: %v; it must be positive, and at most %v", s.Timeout, MaxTimeout)
	case s.Backoff.Initial < 0 || s.Backoff.Max < 0 || !(s.Backoff.Factor >= 1):
		return invalid("backoff: initial and max must not be negative, and factor must be at least 1")
	case s.Backoff.Initial > MaxTimeout || s.Backoff.Max > MaxTimeout || s.Backoff.Factor > MaxBackoffFactor:
		return invalid("backoff: at most %v and a factor of %d are allowed", MaxTimeout, MaxBackoffFactor)
	case len(s.Constraints) > MaxConstraints:
		return invalid("constraints: %d of them; at most %d are allowed", len(s.Constraints), MaxConstraints)
	}
	for _, err := range [...]error{
		s.validateNames(), validateEnv("env", s.Env), s.Resources.validate(),
	} {
		if err != nil {
			return err
		}
	}
	for i := range s.Constraints {
		if err := s.Constraints[i].validate(fmt.Sprintf("constraints[%d]", i)); err != nil {
			return err
		}
	}
	if text := contradiction(s.Constraints); text != "" {
		return invalid("%s; keep one", text)
	}
	return nil
}

func (s *Spec) validateNames() error {
	switch {
	case len(s.Name) > maxName:
		return invalid("name: %d bytes; at most %d are allowed", len(s.Name), maxName)
	case !isText(s.Name):
		return invalid("name " + noText)
	case !isDNSLabel(s.Namespace):
		return invalid("namespace: %q; "+dnsLabel, s.Namespace)
	case !isDNSLabel(s.Queue):
		return invalid("queue: %q; "+dnsLabel, s.Queue)
	case len(s.Labels) > maxLabels:
		return invalid("labels: %d of them; at most %d are allowed", len(s.Labels), maxLabels)
	}
	for _, name := range names(s.Labels) {
		if !isLabelName(name) {
			return invalid("labels: %q is no name for a label; use up to 128 letters, digits, '.', '_', '/' and '-', a letter or digit first and last", name)
		}
		if !isText(s.Labels[name]) {
			return invalid("labels[%q] "+noText, name)
		}
		if len(s.Labels[name]) > maxLabelValue {
			return invalid("labels[%q]: %d bytes; at most %d are allowed", name, len(s.Labels[name]), maxLabelValue)
		}
	}
	return nil
}

// names returns the keys of a map in order, so that of several things that are wrong the same one is always named.
func names[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil // quickly, for most jobs have no maps
	}
	return slices.Sorted(maps.Keys(m))
}

// noText says what is wrong with a string that is no text.
const noText = "contains a NUL byte, which no program can be given, or is not UTF-8; remove what is not text"

// isText reports whether a string can be given to a program and shown by every client.
func isText(s string) bool { return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) }

const dnsLabel = "use up to 63 lower-case letters, digits and '-', a letter or digit first and last"

func isDNSLabel(s string) bool {
	return len(s) <= 63 && edged(s, isLowerOrDigit) && all(s, func(c byte) bool { return isLowerOrDigit(c) || c == '-' })
}

func isLabelName(s string) bool {
	return len(s) <= 128 && edged(s, isAlphanumeric) && all(s, func(c byte) bool {
		return isAlphanumeric(c) || c == '.' || c == '_' || c == '/' || c == '-'
	})
}

func isStepName(s string) bool {
	return len(s) <= 127 && s != "" && isAlphanumeric(s[0]) && all(s, func(c byte) bool {
		return isAlphanumeric(c) || c == '.' || c == '_' || c == ' ' || c == '-'
	})
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
func isAlphanumeric(c byte) bool { return isLowerOrDigit(c) || 'A' <= c && c <= 'Z' }

// edged reports whether the first and the last byte are of a kind.
func edged(s string, kind func(byte) bool) bool {
	return s != "" && kind(s[0]) && kind(s[len(s)-1])
}

func all(s string, kind func(byte) bool) bool {
	for i := range len(s) {
		if !kind(s[i]) {
			return false
		}
	}
	return true
}

// normalizedSteps appends the steps to out with defaults filled in.
func normalizedSteps(out, steps []Step) ([]Step, error) {
	out = append(out, steps...)
	for i := range out {
		step := &out[i]
		if step.Name == "" {
			step.Name = defaultStepName(i)
		}
		step.Grace = cmp.Or(step.Grace, DefaultGrace)
		if step.Script != "" && len(step.Shell) == 0 {
			step.Shell = defaultShell
		}
		for first := range out[:i] {
			if out[first].Name == step.Name {
				return nil, invalid("steps[%d].name: %q is the name of steps[%d] too; names must differ", i, step.Name, first)
			}
		}
		if err := step.normalize(i); err != nil {
			return nil, err
		}
		if err := step.validate(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// normalize fills in what few steps have: secrets and a terminal.
func (s *Step) normalize(i int) error {
	if s.Terminal != nil {
		size := *s.Terminal
		if size.Columns < 0 || size.Rows < 0 || size.Columns > maxTerminal || size.Rows > maxTerminal {
			return invalid("steps[%d].terminal: %d by %d characters; at most %d by %[4]d are allowed", i, size.Columns, size.Rows, maxTerminal)
		}
		s.Terminal = &Terminal{Columns: cmp.Or(size.Columns, DefaultColumns), Rows: cmp.Or(size.Rows, DefaultRows)}
	}
	if len(s.Secrets) == 0 {
		return nil
	}
	if len(s.Secrets) > maxSecrets {
		return invalid("steps[%d].secrets: %d of them; at most %d are allowed", i, len(s.Secrets), maxSecrets)
	}
	s.Secrets = slices.Clone(s.Secrets)
	seen := make(map[string]bool, len(s.Secrets))
	for n := range s.Secrets {
		ref := &s.Secrets[n]
		ref.Env = cmp.Or(ref.Env, ref.Name)
		if !IsSecretName(ref.Name) || !IsSecretName(ref.Env) {
			return invalid("steps[%d].secrets[%d]: %q for the variable %q; "+secretName, i, n, ref.Name, ref.Env)
		}
		if _, plain := s.Env[ref.Env]; plain || seen[ref.Env] {
			return invalid("steps[%d].secrets[%d]: the variable %s is given twice; give the secret another one with `env`", i, n, ref.Env)
		}
		seen[ref.Env] = true
	}
	return nil
}

const secretName = "use up to 128 letters, digits and '_', no digit first"

// IsSecretName reports whether a secret may have this name.
func IsSecretName(s string) bool {
	return s != "" && len(s) <= 128 && (s[0] < '0' || s[0] > '9') &&
		all(s, func(c byte) bool { return isAlphanumeric(c) || c == '_' })
}

// CheckNamespace returns what is wrong with the name of a namespace, a *Error with CodeInvalid, or nil.
func CheckNamespace(name string) error {
	if !isDNSLabel(name) {
		return invalid("namespace: %q; "+dnsLabel, name)
	}
	return nil
}

var defaultShell = []string{"sh", "-e", "-c"}

// defaultStepName names a step that has no name, by its index.
func defaultStepName(i int) string {
	if i == 0 {
		return "step-1" // most jobs have one step, and a constant costs nothing
	}
	return "step-" + strconv.Itoa(i+1)
}

func (s *Step) validate(i int) error {
	path := func() string { return fmt.Sprintf("steps[%d]", i) } // built only for errors: this runs for every job
	switch {
	case !isStepName(s.Name):
		return invalid("%s.name: %q; use up to 127 letters, digits, '.', '_', '-' and spaces, a letter or digit first", path(), s.Name)
	case len(s.Argv) == 0 && s.Script == "":
		return invalid("%s (%q) has neither a command nor a script; give it one", path(), s.Name)
	case len(s.Argv) != 0 && s.Script != "":
		return invalid("%s (%q) has both a command and a script; keep one", path(), s.Name)
	case len(s.Argv) != 0 && s.Argv[0] == "":
		return invalid("%s.command.argv[0]: the program's name is empty", path())
	case len(s.Argv) > maxArgs || len(s.Shell) > maxShell:
		return invalid("%s: %d arguments; at most %d are allowed", path(), len(s.Argv)+len(s.Shell), maxArgs)
	case len(s.Script) > maxScriptBytes:
		return invalid("%s.script.text: %d bytes; at most %d are allowed", path(), len(s.Script), maxScriptBytes)
	case s.Timeout < 0 || s.Grace < 0 || s.Timeout > MaxTimeout || s.Grace > maxGrace:
		return invalid("%s: timeout and grace must not be negative, and at most %v and %v", path(), MaxTimeout, maxGrace)
	case len(s.WorkingDir) > maxPathBytes:
		return invalid("%s.working_dir is longer than %d bytes", path(), maxPathBytes)
	case !isText(s.WorkingDir):
		return invalid("%s.working_dir "+noText, path())
	}
	for _, list := range [...][]string{s.Argv, s.Shell, {s.Script}} {
		for n, arg := range list {
			if !isText(arg) {
				return invalid("%s: argument %d "+noText, path(), n)
			}
		}
	}
	if len(s.Env) == 0 {
		return nil
	}
	return validateEnv(path()+".env", s.Env)
}

func validateEnv(path string, env map[string]string) error {
	if len(env) > maxEnv {
		return invalid("%s: %d variables; at most %d are allowed", path, len(env), maxEnv)
	}
	for _, name := range names(env) {
		if name == "" || strings.Contains(name, "=") || !isText(name) {
			return invalid("%s: %q is no name for a variable; it must be text, not empty, without '=' and NUL", path, name)
		}
		if !isText(env[name]) {
			return invalid("%s[%q] "+noText, path, name)
		}
	}
	return nil
}
