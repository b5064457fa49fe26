package agent

import (
	"fmt"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// maxTaints is more than a job can tolerate.
const maxTaints = 32

// checkOffer returns what is wrong with what the machine's owner says of it: no job could name it.
func (c *Config) checkOffer() error {
	if len(c.Taints) > maxTaints {
		return fmt.Errorf("%d taints; a job can tolerate %d", len(c.Taints), maxTaints)
	}
	for _, taint := range c.Taints {
		if !isName(taint, 128, true) {
			return fmt.Errorf("taint %q: use up to 128 letters, digits, '.', '_', '/' and '-', a letter or digit first and last", taint)
		}
	}
	for name, n := range c.Capacity.Extras {
		if !isName(name, 63, false) {
			return fmt.Errorf("extra %q: use up to 63 lower-case letters, digits, '.', '/' and '-', a letter or digit first and last", name)
		}
		if n < 0 {
			return fmt.Errorf("extra %s=%d: it must not be negative", name, n)
		}
	}
	return nil
}

// isName reports whether a text is a name of letters and digits with some other characters between them; long names may have capitals
// and '_' as well.
func isName(s string, most int, long bool) bool {
	for i := range len(s) {
		c, inside := s[i], i > 0 && i < len(s)-1
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case long && 'A' <= c && c <= 'Z':
		case inside && (c == '.' || c == '/' || c == '-' || long && c == '_'):
		default:
			return false
		}
	}
	return s != "" && len(s) <= most
}

// capable is a runner that can do what not all can.
type capable interface{ Capabilities() []string }

// capabilities returns what a runner can do that not all can.
func capabilities(r runner.Runner) []string {
	if c, ok := r.(capable); ok {
		return c.Capabilities()
	}
	return nil
}
