package hodei

import (
	"fmt"
	"strings"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// ParseConstraint reads a condition on a worker's label: os=linux, zone=a|b (one of them), arch!=arm64, gpu (there, whatever it is),
// !gpu, mem>16, mem<64, and cuda~>=12.2, <13 for a range of versions. Whether the label and the values are good the server says.
func ParseConstraint(text string) (*hodeiv1.Constraint, error) {
	if label, ok := strings.CutPrefix(text, "!"); ok {
		if label == "" || strings.ContainsAny(label, "=!<>~") {
			return nil, constraintError(text)
		}
		return &hodeiv1.Constraint{Label: label, Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_NOT_EXISTS}, nil
	}
	at := strings.IndexAny(text, "=!<>~")
	if at < 0 && text != "" {
		return &hodeiv1.Constraint{Label: text, Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_EXISTS}, nil
	}
	if at <= 0 {
		return nil, constraintError(text)
	}
	c := &hodeiv1.Constraint{Label: text[:at]}
	for _, o := range []struct {
		sign     string
		operator hodeiv1.ConstraintOperator
	}{
		{"!=", hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_NOT_IN},
		{"=", hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_IN},
		{"<", hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_LESS},
		{">", hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_GREATER},
		{"~", hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_VERSION},
	} {
		value, ok := strings.CutPrefix(text[at:], o.sign)
		if !ok {
			continue
		}
		c.Operator, c.Values = o.operator, []string{strings.TrimSpace(value)}
		switch {
		case o.sign != "~" && strings.HasPrefix(value, "="):
			return nil, fmt.Errorf("constraint %q: there is no %s=; use = and != for texts, < and > for numbers, and ~ for versions", text, o.sign)
		case o.sign == "=" || o.sign == "!=":
			c.Values = strings.Split(value, "|")
		}
		return c, nil
	}
	return nil, constraintError(text)
}

func constraintError(text string) error {
	return fmt.Errorf("%q is no constraint; write label=value, label=a|b, label!=value, label, !label, label<number, label>number, "+
		"or label~range for versions", text)
}
