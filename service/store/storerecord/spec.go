package storerecord

import (
	"maps"
	"math"
	"slices"

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
	return appendTime(b, 15, s.RunAfter)
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
	return appendNumber(b, 8, int64(s.Grace))
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
		}
		return err
	})
	if len(spec.Steps) == job.MaxSteps {
		return errCut
	}
	spec.Steps = append(spec.Steps, s)
	return err
}

func appendResources(b []byte, r job.Resources) []byte {
	b = appendNumber(b, 1, r.MilliCPU)
	b = appendNumber(b, 2, r.MemoryMiB)
	if len(r.Extras) == 0 {
		return b
	}
	for _, name := range slices.Sorted(maps.Keys(r.Extras)) {
		b = appendMessage(b, 3, func(b []byte) []byte { return appendNumber(appendString(b, 1, name), 2, r.Extras[name]) })
	}
	return b
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
			return addExtra(&r, v.bytes)
		}
		return nil
	})
	return r, err
}

func addExtra(r *job.Resources, b []byte) error {
	var name string
	var n int32
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			name = string(v.bytes)
		case 2:
			n = v.int32()
		}
		return nil
	})
	if r.Extras == nil {
		r.Extras = make(map[string]int32)
	}
	r.Extras[name] = n
	return err
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
	spec.Constraints = append(spec.Constraints, c)
	return err
}
