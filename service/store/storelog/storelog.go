// Package storelog is how stores keep jobs, whatever engine they are built on.
//
// Engines pay for every record that is written, looked for, moved by a compaction and deleted again, so a commit writes few
// records, whatever the number of its jobs:
//
//   - pages: up to 64 jobs that were accepted together, with their specs; written once. A job's address is its page and its
//     position there;
//   - endings: the last states of those jobs of a page that ended in one commit; written once;
//   - lists: which jobs of a page belong to a list, as one bit for each position;
//   - one block for each commit, with what happened to unfinished jobs in between. Together the blocks are a log that holds
//     the unfinished jobs and is cut short as they end (see hot).
//
// Jobs implements store.Jobs on these; an adapter gives it an Engine and writes what Prepare returns.
package storelog

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// appendAccepted writes what is known of a job when it is accepted: when that was, and its spec.
func appendAccepted(b []byte, j *job.Job) []byte {
	return storerecord.AppendSpec(binary.BigEndian.AppendUint64(b, uint64(j.Created.UnixNano())), j.Spec)
}

// decodeJob puts a job together from its record of acceptance and its state, nil for a job that is as it was accepted.
func decodeJob(id job.ID, accepted, state []byte) (job.Job, error) {
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
