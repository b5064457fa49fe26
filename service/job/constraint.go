package job

import (
	"math"
	"slices"
	"strconv"
)

// Operator says how a Constraint compares a worker's label.
type Operator uint8

// The operators.
const (
	OperatorIn Operator = iota + 1
	OperatorNotIn
	OperatorExists
	OperatorNotExists
	OperatorLess    // the label is a number, and smaller
	OperatorGreater // the label is a number, and greater
	OperatorVersion // the label is a version of a range, see Constraint
)

// Constraint is a condition on one label of a worker. OperatorIn and OperatorNotIn take values; OperatorLess and OperatorGreater
// one number; OperatorVersion one range of semantic versions, such as ">=1.2, <2" or "^1.4"; the others none.
type Constraint struct {
	Label    string
	Operator Operator
	Values   []string
}

// Holds reports whether a worker with these labels satisfies the constraint.
func (c *Constraint) Holds(labels map[string]string) bool {
	value, ok := labels[c.Label]
	switch c.Operator {
	case OperatorNotIn:
		return !ok || c.holdsFor(value)
	case OperatorNotExists:
		return !ok
	}
	return ok && c.holdsFor(value)
}

// holdsFor reports whether a label with this value satisfies the constraint.
func (c *Constraint) holdsFor(value string) bool {
	switch c.Operator {
	case OperatorIn:
		return slices.Contains(c.Values, value)
	case OperatorNotIn:
		return !slices.Contains(c.Values, value)
	case OperatorExists:
		return true
	case OperatorLess:
		return number(value) < number(c.value()) // never for what is no number
	case OperatorGreater:
		return number(value) > number(c.value())
	case OperatorVersion:
		return versionIn(value, c.value())
	}
	return false
}

// value is the one value of an operator that takes one. A record that is damaged may have none.
func (c *Constraint) value() string {
	if len(c.Values) == 0 {
		return ""
	}
	return c.Values[0]
}

// number reads a label's number; NaN for what is none, or has no end, which is neither smaller nor greater than anything.
func number(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return math.NaN()
	}
	return f
}

// bytes returns about how much memory it takes.
func (c *Constraint) bytes() int {
	n := 64 + len(c.Label)
	for _, v := range c.Values {
		n += 16 + len(v)
	}
	return n
}

// validate checks that the operator has the values it needs, because a constraint that can never hold is a typing error.
func (c *Constraint) validate(path string) error {
	switch c.Operator {
	case OperatorIn, OperatorNotIn:
		if len(c.Values) == 0 {
			return invalid("%s: IN and NOT_IN on label %q need at least one value", path, c.Label)
		}
	case OperatorExists, OperatorNotExists:
		if len(c.Values) != 0 {
			return invalid("%s: EXISTS and NOT_EXISTS on label %q take no values", path, c.Label)
		}
	case OperatorLess, OperatorGreater:
		if len(c.Values) != 1 || math.IsNaN(number(c.Values[0])) {
			return invalid("%s: LESS and GREATER on label %q need one number", path, c.Label)
		}
	case OperatorVersion:
		if len(c.Values) != 1 || len(c.Values[0]) > maxLabelValue || !isVersionRange(c.Values[0]) {
			return invalid("%s: VERSION on label %q needs one range of versions, for example \">=1.2, <2\" or \"^1.4\"", path, c.Label)
		}
	default:
		return invalid("%s on label %q has no operator; use IN, NOT_IN, EXISTS, NOT_EXISTS, LESS, GREATER or VERSION", path, c.Label)
	}
	if len(c.Values) > maxValues || len(c.Label) > maxLabelValue {
		return invalid("%s: at most %d values and %d bytes of label are allowed", path, maxValues, maxLabelValue)
	}
	if c.Label == "" {
		return invalid("%s has no label; name the worker's label that it is about", path)
	}
	if !isText(c.Label) || slices.ContainsFunc(c.Values, func(v string) bool { return !isText(v) }) {
		return invalid("%s: the label or a value "+noText, path)
	}
	return nil
}
