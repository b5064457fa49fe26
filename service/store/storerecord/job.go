package storerecord

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hodei-jobs/hodei/service/job"
)

// AppendState appends the record of everything of a job but its id and spec.
func AppendState(b []byte, j *job.Job) []byte {
	b = append(b, Version)
	b = appendNumber(b, 1, j.State)
	if j.Cause != (job.Cause{}) {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendCause(b, &j.Cause) })
	}
	b = appendNumber(b, 3, j.Attempt)
	b = appendNumber(b, 4, j.Epoch)
	b = appendString(b, 5, string(j.Worker))
	if slices.ContainsFunc(j.Steps, begun) {
		for i := range j.Steps {
			b = appendMessage(b, 6, func(b []byte) []byte { return appendStepStatus(b, &j.Steps[i]) })
		}
	}
	b = appendTime(b, 7, j.Created)
	b = appendTime(b, 8, j.Started)
	b = appendTime(b, 9, j.Ended)
	b = appendTime(b, 10, j.NextAttempt)
	b = appendNumber(b, 11, j.Revision)
	b = appendString(b, 12, j.Cancel.Actor)
	b = appendString(b, 13, j.Cancel.Reason)
	b = appendBool(b, 14, j.Cancel.Force)
	b = appendBool(b, 15, j.Silent)
	b = appendNumbers(b, 16, j.Masked)
	b = appendBool(b, 17, j.Preempting)
	b = appendNumber(b, 18, j.Preemptions)
	b = appendNumber(b, 19, j.WorkersLost)
	b = appendString(b, 20, j.Held)
	b = appendString(b, 21, j.Waited)
	for i := range j.Former {
		b = appendMessage(b, 22, func(b []byte) []byte { return appendFormer(b, &j.Former[i]) })
	}
	if p := j.Progress; p != nil {
		b = appendMessage(b, 23, func(b []byte) []byte { return appendString(appendNumber(b, 1, p.Permille), 2, p.Message) })
	}
	return b
}

func begun(s job.StepStatus) bool { return s != job.StepStatus{State: job.StepPending} }

func appendBool(b []byte, num protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendNumber(b, num, uint8(1))
}

// DecodeState reads the record of a job's state into j, which must have no state yet.
func DecodeState(record []byte, j *job.Job) error {
	return fields(record, func(num protowire.Number, v value) (err error) {
		switch num {
		case 1:
			j.State = job.State(v.number)
			if !j.State.Valid() {
				err = errCut
			}
		case 2:
			j.Cause, err = decodeCause(v.bytes)
		case 3:
			j.Attempt = v.int32()
		case 4:
			j.Epoch = v.number
		case 5:
			j.Worker = job.WorkerID(v.bytes)
		case 6:
			err = addStepStatus(j, v.bytes)
		case 7:
			j.Created = v.time()
		case 8:
			j.Started = v.time()
		case 9:
			j.Ended = v.time()
		case 10:
			j.NextAttempt = v.time()
		case 11:
			j.Revision = v.int32()
		case 12:
			j.Cancel.Actor = string(v.bytes)
		case 13:
			j.Cancel.Reason = string(v.bytes)
		case 14:
			j.Cancel.Force = v.number != 0
		case 15:
			j.Silent = v.number != 0
		case 16:
			err = addNumber(&j.Masked, v.bytes)
		case 17:
			j.Preempting = v.number != 0
		case 18:
			j.Preemptions = v.int32()
		case 19:
			j.WorkersLost = v.int32()
		case 20:
			j.Held = string(v.bytes)
		case 21:
			j.Waited = string(v.bytes)
		case 22:
			err = addFormer(j, v.bytes)
		case 23:
			j.Progress, err = decodeProgress(v.bytes)
		}
		return err
	})
}

// DecodeJob puts a job together from its two records. A job whose parts do not belong together is refused.
func DecodeJob(id job.ID, spec, state []byte) (job.Job, error) {
	j := job.Job{ID: id}
	var err error
	if j.Spec, err = DecodeSpec(spec); err != nil {
		return job.Job{}, err
	}
	if err := DecodeState(state, &j); err != nil {
		return job.Job{}, err
	}
	if len(j.Steps) == 0 {
		j.Steps = job.PendingSteps(len(j.Spec.Steps))
	}
	if !j.State.Valid() || len(j.Steps) != len(j.Spec.Steps) || len(j.Steps) == 0 {
		return job.Job{}, errCut
	}
	return j, nil
}

func appendCause(b []byte, c *job.Cause) []byte {
	b = appendNumber(b, 1, c.Kind)
	b = appendNumber(b, 2, int64(c.ExitCode))
	b = appendString(b, 3, c.Signal)
	b = appendString(b, 4, c.Step)
	b = appendString(b, 5, c.Message)
	return appendString(b, 6, c.Actor)
}

func decodeCause(b []byte) (job.Cause, error) {
	var c job.Cause
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			c.Kind = job.CauseKind(v.number)
		case 2:
			c.ExitCode = v.int32()
		case 3:
			c.Signal = string(v.bytes)
		case 4:
			c.Step = string(v.bytes)
		case 5:
			c.Message = string(v.bytes)
		case 6:
			c.Actor = string(v.bytes)
		}
		return nil
	})
	return c, err
}

func appendFormer(b []byte, f *job.FormerAttempt) []byte {
	b = appendNumber(b, 1, f.Attempt)
	b = appendNumber(b, 2, f.Epoch)
	return appendString(b, 3, string(f.Worker))
}

func decodeProgress(b []byte) (*job.Progress, error) {
	p := new(job.Progress)
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			p.Permille = v.int32()
		case 2:
			p.Message = string(v.bytes)
		}
		return nil
	})
	return p, err
}

func addFormer(j *job.Job, b []byte) error {
	var f job.FormerAttempt
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			f.Attempt = v.int32()
		case 2:
			f.Epoch = v.number
		case 3:
			f.Worker = job.WorkerID(v.bytes)
		}
		return nil
	})
	j.Former = append(j.Former, f)
	return err
}

func appendStepStatus(b []byte, s *job.StepStatus) []byte {
	b = appendNumber(b, 1, s.State)
	if s.Cause != (job.Cause{}) {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendCause(b, &s.Cause) })
	}
	b = appendTime(b, 3, s.Started)
	b = appendTime(b, 4, s.Ended)
	b = appendNumber(b, 5, int64(s.Usage.UserCPU))
	b = appendNumber(b, 6, int64(s.Usage.SystemCPU))
	b = appendNumber(b, 7, s.Usage.MaxRSSKiB)
	return appendBool(b, 8, s.CancelRequested)
}

func addStepStatus(j *job.Job, b []byte) error {
	var s job.StepStatus
	err := message(b, func(num protowire.Number, v value) (err error) {
		switch num {
		case 1:
			s.State = job.StepState(v.number)
		case 2:
			s.Cause, err = decodeCause(v.bytes)
		case 3:
			s.Started = v.time()
		case 4:
			s.Ended = v.time()
		case 5:
			s.Usage.UserCPU = v.duration()
		case 6:
			s.Usage.SystemCPU = v.duration()
		case 7:
			s.Usage.MaxRSSKiB = v.int32()
		case 8:
			s.CancelRequested = v.number != 0
		}
		return err
	})
	if len(j.Steps) == job.MaxSteps {
		return errCut // a record of a few kilobytes would become megabytes
	}
	j.Steps = append(j.Steps, s)
	return err
}
