package storerecord

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hodei-jobs/hodei/service/job"
)

// AppendSpec appends the record of a spec.
func AppendSpec(b []byte, s *job.Spec) []byte {
	b = append(b, Version)
	b = appendString(b, 1, s.Name)
	b = appendString(b, 2, s.Namespace)
	b = appendString(b, 3, s.Queue)
	b = appendStrings(b, 4, s.Labels)
	for i := range s.Steps {
		b = appendMessage(b, 5, func(b []byte) []byte { return appendStep(b, &s.Steps[i]) })
	}
	b = appendStrings(b, 6, s.Env)
	b = appendMessage(b, 7, func(b []byte) []byte { return appendResources(b, s.Resources) })
	for i := range s.Constraints {
		b = appendMessage(b, 8, func(b []byte) []byte { return appendConstraint(b, &s.Constraints[i]) })
	}
	b = appendNumber(b, 9, int64(s.Priority))
	b = appendNumber(b, 10, int64(s.Timeout))
	b = appendNumber(b, 11, s.MaxAttempts)
	b = appendNumber(b, 12, int64(s.Backoff.Initial))
	b = appendNumber(b, 13, int64(s.Backoff.Max))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 14, protowire.Fixed64Type), math.Float64bits(s.Backoff.Factor))
	b = appendTime(b, 15, s.RunAfter)
	if s.Placement != nil {
		b = appendMessage(b, 16, func(b []byte) []byte { return appendPlacement(b, s.Placement) })
	}
	return b
}

// DecodeSpec reads the record of a spec.
func DecodeSpec(record []byte) (*job.Spec, error) {
	s := new(job.Spec)
	return s, fields(record, func(num protowire.Number, v value) (err error) {
		switch num {
		case 1:
			s.Name = string(v.bytes)
		case 2:
			s.Namespace = string(v.bytes)
		case 3:
			s.Queue = string(v.bytes)
		case 4:
			err = addString(&s.Labels, v.bytes)
		case 5:
			err = addStep(s, v.bytes)
		case 6:
			err = addString(&s.Env, v.bytes)
		case 7:
			s.Resources, err = decodeResources(v.bytes)
		case 8:
			err = addConstraint(s, v.bytes)
		case 9:
			s.Priority = v.int32()
		case 10:
			s.Timeout = v.duration()
		case 11:
			s.MaxAttempts = v.int32()
		case 12:
			s.Backoff.Initial = v.duration()
		case 13:
			s.Backoff.Max = v.duration()
		case 14:
			s.Backoff.Factor = math.Float64frombits(v.number)
		case 15:
			s.RunAfter = v.time()
		case 16:
			s.Placement, err = decodePlacement(v.bytes)
		}
		return err
	})
}

func appendStep(b []byte, s *job.Step) []byte {
	b = appendString(b, 1, s.Name)
	for _, arg := range s.Argv {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), arg)
	}
	b = appendString(b, 3, s.Script)
	for _, arg := range s.Shell {
		b = protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), arg)
	}
	b = appendStrings(b, 5, s.Env)
	b = appendString(b, 6, s.WorkingDir)
	b = appendNumber(b, 7, int64(s.Timeout))
	b = appendNumber(b, 8, int64(s.Grace))
	for i := range s.Secrets {
		b = appendMessage(b, 9, func(b []byte) []byte { return appendSecretRef(b, &s.Secrets[i]) })
	}
	if s.Terminal != nil {
		b = appendMessage(b, 10, func(b []byte) []byte { return appendNumber(appendNumber(b, 1, s.Terminal.Columns), 2, s.Terminal.Rows) })
	}
	return b
}

func addStep(spec *job.Spec, b []byte) error {
	var s job.Step
	err := message(b, func(num protowire.Number, v value) (err error) {
		switch num {
		case 1:
			s.Name = string(v.bytes)
		case 2:
			s.Argv = append(s.Argv, string(v.bytes))
		case 3:
			s.Script = string(v.bytes)
		case 4:
			s.Shell = append(s.Shell, string(v.bytes))
		case 5:
			err = addString(&s.Env, v.bytes)
		case 6:
			s.WorkingDir = string(v.bytes)
		case 7:
			s.Timeout = v.duration()
		case 8:
			s.Grace = v.duration()
		case 9:
			err = addSecretRef(&s, v.bytes)
		case 10:
			s.Terminal, err = decodeTerminal(v.bytes)
		}
		return err
	})
	if len(spec.Steps) == job.MaxSteps {
		return errCut
	}
	spec.Steps = append(spec.Steps, s)
	return err
}

func appendSecretRef(b []byte, r *job.SecretRef) []byte {
	return appendBool(appendString(appendString(b, 1, r.Name), 2, r.Env), 3, r.File)
}

func addSecretRef(s *job.Step, b []byte) error {
	var r job.SecretRef
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			r.Name = string(v.bytes)
		case 2:
			r.Env = string(v.bytes)
		case 3:
			r.File = v.number != 0
		}
		return nil
	})
	s.Secrets = append(s.Secrets, r)
	return err
}

func decodeTerminal(b []byte) (*job.Terminal, error) {
	t := new(job.Terminal)
	return t, message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			t.Columns = v.int32()
		case 2:
			t.Rows = v.int32()
		}
		return nil
	})
}

func appendResources(b []byte, r job.Resources) []byte {
	b = appendNumber(b, 1, r.MilliCPU)
	b = appendNumber(b, 2, r.MemoryMiB)
	return appendNumbers(b, 3, r.Extras)
}

func decodeResources(b []byte) (job.Resources, error) {
	var r job.Resources
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			r.MilliCPU = v.int32()
		case 2:
			r.MemoryMiB = v.int32()
		case 3:
			return addNumber(&r.Extras, v.bytes)
		}
		return nil
	})
	return r, err
}

func appendConstraint(b []byte, c *job.Constraint) []byte {
	b = appendString(b, 1, c.Label)
	b = appendNumber(b, 2, c.Operator)
	for _, v := range c.Values {
		b = appendBytes(b, 3, []byte(v))
	}
	return b
}

func addConstraint(spec *job.Spec, b []byte) error {
	c, err := decodeConstraint(b)
	spec.Constraints = append(spec.Constraints, c)
	return err
}

func decodeConstraint(b []byte) (job.Constraint, error) {
	var c job.Constraint
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			c.Label = string(v.bytes)
		case 2:
			c.Operator = job.Operator(v.number)
		case 3:
			c.Values = append(c.Values, string(v.bytes))
		}
		return nil
	})
	return c, err
}
