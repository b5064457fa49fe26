// Package storelog is how stores keep jobs, whatever engine they are built on: two records that are written once, when a
// job is accepted and when it ends; a log of what happens to unfinished jobs in between, one block for each commit; and
// lists for listing, one posting for each commit and list.
//
// A job that passes through costs two records and a few dozen bytes. Engines pay for every record that is written, looked
// for and deleted again, so this is what makes many jobs a second possible.
package storelog

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// AppendAccepted writes what is known of a job when it is accepted: when that was, and its spec.
func AppendAccepted(b []byte, j *job.Job) []byte {
	return storerecord.AppendSpec(binary.BigEndian.AppendUint64(b, uint64(j.Created.UnixNano())), j.Spec)
}

// AppendEnded writes the last state of a job.
func AppendEnded(b []byte, j *job.Job) []byte { return storerecord.AppendState(b, j) }

// Decode puts a job together from its record of acceptance and its state, nil for a job that is as it was accepted.
func Decode(id job.ID, accepted, state []byte) (job.Job, error) {
	if len(accepted) < 8 {
		return job.Job{}, errors.New("the record of the spec is cut off")
	}
	if state != nil {
		return storerecord.DecodeJob(id, accepted[8:], state)
	}
	spec, err := storerecord.DecodeSpec(accepted[8:])
	if err != nil {
		return job.Job{}, err
	}
	return job.Accepted(id, spec, time.Unix(0, int64(binary.BigEndian.Uint64(accepted))).UTC())
}

// isAsAccepted reports whether a job's state follows from its spec and the time of its acceptance.
func isAsAccepted(j *job.Job) bool {
	queued := j.State == job.Queued && j.NextAttempt.IsZero()
	delayed := j.State == job.Delayed && j.NextAttempt.Equal(j.Spec.RunAfter)
	return j.Revision == 1 && j.Attempt == 0 && (queued || delayed)
}
