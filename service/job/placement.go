package job

import (
	"fmt"
	"slices"
	"strings"
)

// Placement is what few jobs ask for beside resources and constraints. A Placement in use is never changed.
type Placement struct {
	Affinities  []Affinity   // workers that the job likes or dislikes
	Spread      string       // a worker's label: jobs of this name go to its least used value; empty: no matter
	Apart       string       // a worker's label: no two jobs of this name run at the same value of it; empty: no matter
	Tolerations []string     // taints of workers that do not keep the job away
	Requires    []string     // what the worker's agent must be able to do
	Concurrency *Concurrency // nil: no limit of its own
	Gang        *Gang        // nil: the job starts alone
}

// Affinity makes workers whose labels satisfy the constraint more welcome, or less so.
type Affinity struct {
	Constraint Constraint
	Weight     int32 // from -100 to 100, not 0: 100 is as much as how well a worker is packed
}

// Concurrency limits how many jobs of a namespace with the same key run at the same time.
type Concurrency struct {
	Key    string
	Limit  int32
	Policy ConcurrencyPolicy
}

// ConcurrencyPolicy says what becomes of older jobs with the same key.
type ConcurrencyPolicy uint8

// The policies.
const (
	ConcurrencyQueue         ConcurrencyPolicy = iota + 1 // all of them run, one after the other
	ConcurrencyLatest                                     // of those that wait only the newest is kept
	ConcurrencyCancelRunning                              // the same, and those that run are canceled
)

// Gang makes jobs of a queue start together or not at all. Their first attempts do; a job that starts again does so alone.
type Gang struct {
	Name string
	Size int32 // how many jobs have this name
}

// Limits of a Placement.
const (
	maxAffinities  = 32
	maxTolerations = 32
	maxRequires    = 32
	maxKey         = 256
	maxGang        = 1024
	maxAffinity    = 100
)

// normalized returns what is wrong, or the placement with defaults filled in. A placement that asks for nothing becomes nil.
func (p *Placement) normalized() (*Placement, error) {
	if p == nil {
		return nil, nil
	}
	out := *p
	if err := out.validate(); err != nil {
		return nil, err
	}
	if c := out.Concurrency; c != nil {
		full := *c
		full.Limit = max(full.Limit, 1)
		if full.Policy == 0 {
			full.Policy = ConcurrencyQueue
		}
		out.Concurrency = &full
	}
	if len(out.Affinities)+len(out.Tolerations)+len(out.Requires) == 0 && out.Spread == "" && out.Apart == "" &&
		out.Concurrency == nil && out.Gang == nil {
		return nil, nil
	}
	return &out, nil
}

func (p *Placement) validate() error {
	switch {
	case len(p.Affinities) > maxAffinities:
		return invalid("affinities: %d of them; at most %d are allowed", len(p.Affinities), maxAffinities)
	case len(p.Tolerations) > maxTolerations:
		return invalid("tolerations: %d of them; at most %d are allowed", len(p.Tolerations), maxTolerations)
	case len(p.Requires) > maxRequires:
		return invalid("requires: %d of them; at most %d are allowed", len(p.Requires), maxRequires)
	case p.Spread != "" && !isLabelName(p.Spread):
		return invalid("spread: %q is no name of a worker's label", p.Spread)
	case p.Apart != "" && !isLabelName(p.Apart):
		return invalid("apart: %q is no name of a worker's label", p.Apart)
	}
	for i := range p.Affinities {
		a := &p.Affinities[i]
		if a.Weight == 0 || a.Weight < -maxAffinity || a.Weight > maxAffinity {
			return invalid("affinities[%d].weight: %d; it must be from -%d to %d, and not 0", i, a.Weight, maxAffinity, maxAffinity)
		}
		if err := a.Constraint.validate(fmt.Sprintf("affinities[%d].constraint", i)); err != nil {
			return err
		}
	}
	for i, t := range p.Tolerations {
		if !isLabelName(t) {
			return invalid("tolerations[%d]: %q is no name of a taint; use up to 128 letters, digits, '.', '_', '/' and '-'", i, t)
		}
	}
	for i, name := range p.Requires {
		if !isLabelName(name) {
			return invalid("requires[%d]: %q is no name of a capability; use up to 128 letters, digits, '.', '_', '/' and '-'", i, name)
		}
	}
	if c := p.Concurrency; c != nil {
		switch {
		case c.Key == "" || len(c.Key) > maxKey || !isText(c.Key):
			return invalid("concurrency.key: %q; it must be text of 1 to %d bytes", c.Key, maxKey)
		case c.Limit < 0:
			return invalid("concurrency.limit: %d; it must be at least 1", c.Limit)
		case c.Policy > ConcurrencyCancelRunning:
			return invalid("concurrency.policy: use QUEUE, LATEST or CANCEL_RUNNING")
		}
	}
	if g := p.Gang; g != nil && (!isLabelName(g.Name) || g.Size < 1 || g.Size > maxGang) {
		return invalid("gang: %q of %d jobs; it needs a name of up to 128 letters, digits, '.', '_', '/' and '-', and a size from 1 to %d",
			g.Name, g.Size, maxGang)
	}
	return nil
}

// CapabilityTerminal is what an agent can do that gives steps a terminal.
const CapabilityTerminal = "terminal"

// requiring returns a placement that requires a capability beside what another one says, which may be nil.
func (p *Placement) requiring(capability string) *Placement {
	out := new(Placement)
	if p != nil {
		*out = *p
	}
	if !slices.Contains(out.Requires, capability) {
		out.Requires = append(slices.Clone(out.Requires), capability)
	}
	return out
}

// bytes returns about how much memory it takes.
func (p *Placement) bytes() int {
	if p == nil {
		return 0
	}
	n := 128 + len(p.Spread) + len(p.Apart)
	for i := range p.Affinities {
		n += 8 + p.Affinities[i].Constraint.bytes()
	}
	for _, t := range p.Tolerations {
		n += 16 + len(t)
	}
	for _, name := range p.Requires {
		n += 16 + len(name)
	}
	if p.Concurrency != nil {
		n += 32 + len(p.Concurrency.Key)
	}
	if p.Gang != nil {
		n += 32 + len(p.Gang.Name)
	}
	return n
}

// contradiction returns the two of the constraints that no worker can satisfy together, as a sentence; empty when there are
// none that can be seen.
func contradiction(constraints []Constraint) string {
	for i := range constraints {
		for k := range constraints[:i] {
			if a, b := &constraints[k], &constraints[i]; a.Label == b.Label && a.excludes(b) {
				return fmt.Sprintf("constraints[%d] and constraints[%d] contradict each other: no worker can have %s and %s", k, i, a, b)
			}
		}
	}
	return ""
}

// excludes reports whether no value of the label satisfies both constraints.
func (c *Constraint) excludes(other *Constraint) bool {
	if c.Operator == OperatorNotExists || other.Operator == OperatorNotExists {
		return c.present() || other.present()
	}
	for _, pair := range [...][2]*Constraint{{c, other}, {other, c}} {
		if pair[0].Operator == OperatorIn {
			return !slices.ContainsFunc(pair[0].Values, func(v string) bool { return pair[1].holdsFor(v) })
		}
	}
	less, greater := c, other
	if less.Operator == OperatorGreater {
		less, greater = greater, less
	}
	return less.Operator == OperatorLess && greater.Operator == OperatorGreater && number(less.value()) <= number(greater.value())
}

// present reports whether only workers that have the label satisfy the constraint.
func (c *Constraint) present() bool {
	return c.Operator != OperatorNotIn && c.Operator != OperatorNotExists
}

// String writes the constraint as the command line has it.
func (c *Constraint) String() string {
	values := strings.Join(c.Values, "|")
	switch c.Operator {
	case OperatorIn:
		return c.Label + "=" + values
	case OperatorNotIn:
		return c.Label + "!=" + values
	case OperatorNotExists:
		return "!" + c.Label
	case OperatorLess:
		return c.Label + "<" + values
	case OperatorGreater:
		return c.Label + ">" + values
	case OperatorVersion:
		return c.Label + "~" + values
	default:
		return c.Label
	}
}
