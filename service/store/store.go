// Package store is the port to durable storage: what the use cases ask of a store, and what every store promises.
//
// Adapters are tested by package storetest. They return *job.Error for what a caller can act on (CodeNotFound,
// CodeInvalid for a bad page token) and any other error for a failure of the store itself. All methods may be called
// from several goroutines at once.
package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Store is everything that a store does. Use cases take the smaller interfaces that they need.
type Store interface {
	Leader
	Committer
	Jobs
	Logs
	Records
	Expirer
	// Close waits for running calls and releases the store. Calls after it fail.
	Close() error
}

// ErrDeposed fails the commit of a writer whose term is over: another one has taken the lead.
var ErrDeposed = errors.New("another server has taken the lead of this store")

// Leader hands the lead over.
type Leader interface {
	// Lead begins a new term, larger than all before it, and returns it. Commits of older terms fail from then on.
	Lead(ctx context.Context) (term uint64, err error)
}

// Committer writes facts.
type Committer interface {
	// Commit writes a batch: all of it or nothing, and durably (it survives the loss of power) when it returns nil.
	// Later commits win over earlier ones. After an error the caller must not go on as if nothing had happened: whether the
	// batch was written is unknown until the store is opened again, and a store that once failed to sync fails from then on.
	Commit(ctx context.Context, batch *Batch) error
}

// Batch is what one commit writes. A store reads it only while Commit runs.
type Batch struct {
	Term     uint64     // of the writer; an older one than the last Lead gave fails with ErrDeposed; 0: of whoever leads
	Accepted []*job.Job // new jobs, the spec is written too; by their ids, which are larger than all before
	Changed  []*job.Job // jobs that were accepted before and had not ended
	Ends     []LogEnd   // of logs to which nothing is appended any more
	Requests []Request
	Records  []Record // an empty Value deletes
}

// Empty reports whether there is nothing to write.
func (b *Batch) Empty() bool {
	return len(b.Accepted)+len(b.Changed)+len(b.Ends)+len(b.Requests)+len(b.Records) == 0
}

// Request remembers a submit, so that its repetition gives the same jobs. An ID may be used again when it has expired, so with
// a later Expires.
type Request struct {
	ID      string    // namespace, a slash, and what the client chose
	Hash    [32]byte  // of the body
	Jobs    []job.ID  // what it made, one for each job of the submit; a zero ID for one that was refused
	Expires time.Time // after which it may be forgotten
}

// Jobs reads jobs and requests.
type Jobs interface {
	// Job returns a job; CodeNotFound when there is none.
	Job(ctx context.Context, id job.ID) (job.Job, error)
	// JobsByID calls visit for those of the jobs that are there and can be read, in the order of ids, which must grow.
	JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error
	// ListJobs returns the jobs that match, the newest (largest id) first, at most limit of them, beginning with the first
	// one whose id is smaller than before (zero: from the newest). A job that cannot be read is left out.
	ListJobs(ctx context.Context, filter Filter, before job.ID, limit int) ([]job.Job, error)
	// Unfinished calls visit for every job that has not ended, the oldest (smallest id) first, and stops at its first error.
	// It does not read ended jobs. Records that cannot be decoded are set aside (moved out of the way, kept, logged) and
	// counted in the result; they never make the call fail.
	Unfinished(ctx context.Context, visit func(job.Job) error) (quarantined int, err error)
	// Newest returns the largest id that jobs have, or had when the store was opened; zero when there is none. The ids of
	// jobs that are accepted must be larger.
	Newest(ctx context.Context) (job.ID, error)
	// Request returns what is remembered under an id; CodeNotFound when there is nothing. Expiry is the caller's business.
	Request(ctx context.Context, id string) (Request, error)
}

// Expirer forgets what is old enough.
type Expirer interface {
	// Expire removes jobs that ended before a time, with their logs, and requests that expired before another one (those
	// up to 12 hours later may stay). It does a bounded piece of work and returns how many jobs it removed and whether there
	// is more to do. Jobs that have not ended are never touched. Where several servers share a store, only the one that leads
	// may: for others it fails with ErrDeposed.
	Expire(ctx context.Context, endedBefore, expiredBefore time.Time) (removed int, more bool, err error)
}

// Filter selects jobs; every set field must match.
type Filter struct {
	Namespace  string   // empty: those of Namespaces
	Namespaces []string // when Namespace is empty; none: all
	Queue      string
	Name       string
	States     []job.State
	Labels     map[string]string
	IDs        []job.ID
}

// Matches reports whether the filter selects the job.
func (f *Filter) Matches(j *job.Job) bool {
	switch {
	case f.Namespace != "" && f.Namespace != j.Spec.Namespace,
		f.Namespace == "" && len(f.Namespaces) > 0 && !slices.Contains(f.Namespaces, j.Spec.Namespace),
		f.Queue != "" && f.Queue != j.Spec.Queue,
		f.Name != "" && f.Name != j.Spec.Name,
		len(f.States) > 0 && !slices.Contains(f.States, j.State),
		len(f.IDs) > 0 && !slices.Contains(f.IDs, j.ID):
		return false
	}
	for name, value := range f.Labels {
		if got, ok := j.Spec.Labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// Stream says where a process wrote.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota + 1
	Stderr
)

// LogRef names the log of one attempt: all bytes of all steps and streams, in the order in which they were written.
type LogRef struct {
	Job     job.ID
	Attempt int32
}

// LogBlock is a run of an attempt's bytes, as the log keeper encodes them. Line ends are the bytes '\n'.
type LogBlock struct {
	Ref    LogRef
	Offset uint64    // bytes of the attempt before it
	Bytes  uint32    // how many of the attempt's bytes it holds, at least one
	Line   uint64    // line ends in the attempt before it
	Lines  uint32    // line ends in it
	Time   time.Time // when its first byte was read, or one before it, if that was later
	Data   []byte    // what it holds; stores keep it as it is
}

// End is the offset behind the block.
func (b *LogBlock) End() uint64 { return b.Offset + uint64(b.Bytes) }

// LogEnd closes the log of an attempt.
type LogEnd struct {
	Ref     LogRef
	Bytes   uint64        // how many the attempt wrote
	Streams []StreamTotal // those that have bytes
	Missing string        // why bytes between what is stored and Bytes will never come; empty: the log is complete
	Removed string        // why the bytes are gone that were stored; empty: they are there
}

// StreamTotal proves that a stream is complete.
type StreamTotal struct {
	Step   int32
	Stream Stream
	Bytes  uint64
	SHA256 [32]byte
}

// Logs keeps what jobs write.
type Logs interface {
	// AppendLogs writes blocks and ends, all or nothing, durably when it returns nil. The caller sees to it that the blocks
	// of an attempt follow each other without gap or overlap.
	AppendLogs(ctx context.Context, blocks []LogBlock, ends []LogEnd) error
	// ReadLogs returns the blocks of an attempt from the one that contains offset on, whole and in order, until their data
	// has maxBytes bytes or the log ends, or perhaps some less; at least one when there is one. They are as they were at one
	// moment.
	ReadLogs(ctx context.Context, ref LogRef, offset uint64, maxBytes int) ([]LogBlock, error)
	// MergeLogs puts each of the blocks, which must not overlap, in the place of those that begin inside it. One that does not
	// hold exactly the bytes that they hold together changes nothing; so it is when they were removed meanwhile. Readers see
	// what was before or what is after. A loss of power may undo it, but never loses a byte.
	MergeLogs(ctx context.Context, blocks []LogBlock) error
	// RemoveLogs deletes the blocks of logs and replaces their ends, all or nothing, durably when it returns nil. A log whose
	// end is not stored stays as it is.
	RemoveLogs(ctx context.Context, ends []LogEnd) error
	// LogState returns how much of an attempt's log is stored, without reading it, and its end if that is stored.
	LogState(ctx context.Context, ref LogRef) (LogState, error)
}

// LogState is how far a log has come.
type LogState struct {
	Bytes, Lines uint64 // stored; none when they were removed
	End          *LogEnd
}

// Record is a small piece of state that one use case owns: a token's hash, a worker's drain flag, the server's term.
type Record struct {
	Kind  string // the owner's name for this sort of record; [a-z-]+
	Key   string
	Value []byte
}

// Records reads records. They are written by Commit.
type Records interface {
	// Record returns a value; CodeNotFound when there is none.
	Record(ctx context.Context, kind, key string) ([]byte, error)
	// ListRecords returns all records of a kind, by key.
	ListRecords(ctx context.Context, kind string) ([]Record, error)
	// PageRecords returns some of the records of a kind: for kinds that grow without limit.
	PageRecords(ctx context.Context, kind string, page RecordPage) ([]Record, error)
}

// RecordPage selects the records of a kind that lie next to a key in the order of the keys' bytes.
type RecordPage struct {
	After      string // those behind this key, or before it when Descending; empty: from the start, or from the end
	Limit      int    // how many at most; none when it is not positive
	Descending bool
}
