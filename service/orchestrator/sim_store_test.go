package orchestrator

import (
	"context"
	"errors"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

// simDisk is what survives the lives of the server: exactly what was committed.
type simDisk struct {
	*memstore.Store

	w      *simWorld
	poison map[job.ID]bool // jobs whose record can no longer be decoded
}

func newSimDisk(w *simWorld) *simDisk {
	return &simDisk{Store: memstore.New(), w: w, poison: make(map[job.ID]bool)}
}

// simStore is the disk as one life of the server sees it, with its failures.
type simStore struct {
	*memstore.Store

	disk   *simDisk
	server *simServer
}

var (
	errSimDisk  = errors.New("the disk failed")
	errSimPower = errors.New("the power failed")
)

// Commit implements store.Committer. It may fail before or after it has written, and the power may fail with it, in which
// case nobody hears of it.
func (s *simStore) Commit(ctx context.Context, b *store.Batch) error {
	w := s.disk.w
	fails := w.fault(w.faults.commit)
	written, power := fails && w.chance(0.5), fails && w.chance(0.5)
	if power {
		s.server.dead = true
	}
	if fails && !written {
		w.note("commit of term %d fails, not written, power %v", b.Term, power)
		return errSimDisk
	}
	if err := s.Store.Commit(ctx, b); err != nil {
		return err
	}
	if w.server != s.server {
		w.fail("a server that was deposed has written to the store")
	}
	for _, list := range [][]*job.Job{b.Accepted, b.Changed} {
		for _, j := range list {
			delete(s.disk.poison, j.ID) // it was written anew
		}
	}
	w.audit.committed(b)
	if fails {
		w.note("commit of term %d fails, written, power %v", b.Term, power)
		return errSimPower
	}
	return nil
}

// readFails lets now and then a read fail, as it does when a database is away for a moment.
func (s *simStore) readFails() bool {
	if s.server.o == nil { // during recovery
		return s.disk.w.fault(s.disk.w.faults.read)
	}
	if !s.disk.w.fault(s.disk.w.faults.read) {
		return false
	}
	s.disk.w.note("a read fails")
	return true
}

// Job implements store.Jobs.
func (s *simStore) Job(ctx context.Context, id job.ID) (job.Job, error) {
	if aj := s.disk.w.audit.jobs[id]; aj != nil && aj.aside {
		return job.Job{}, job.NotFound(id.String())
	}
	if s.readFails() || s.disk.poison[id] {
		return job.Job{}, errSimDisk
	}
	return s.Store.Job(ctx, id)
}

// JobsByID implements store.Jobs.
func (s *simStore) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	for i, id := range ids {
		if i > 0 && ids[i-1].Compare(id) >= 0 {
			s.disk.w.fail("ids are asked for out of order")
		}
	}
	if s.readFails() {
		return errSimDisk
	}
	return s.Store.JobsByID(ctx, ids, func(j job.Job) {
		if !s.disk.poison[j.ID] {
			visit(j)
		}
	})
}

// Request implements store.Jobs.
func (s *simStore) Request(ctx context.Context, id string) (store.Request, error) {
	if s.readFails() {
		return store.Request{}, errSimDisk
	}
	return s.Store.Request(ctx, id)
}

// Unfinished implements store.Jobs. Jobs that cannot be decoded are set aside.
func (s *simStore) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	if s.readFails() {
		return 0, errSimDisk
	}
	quarantined := 0
	_, err := s.Store.Unfinished(ctx, func(j job.Job) error {
		if s.disk.poison[j.ID] {
			quarantined++
			s.disk.w.audit.quarantined(j.ID)
			return nil
		}
		return visit(j)
	})
	return quarantined, err
}

// ListRecords implements store.Records.
func (s *simStore) ListRecords(ctx context.Context, kind string) ([]store.Record, error) {
	if s.readFails() {
		return nil, errSimDisk
	}
	return s.Store.ListRecords(ctx, kind)
}

// PageRecords implements store.Records.
func (s *simStore) PageRecords(ctx context.Context, kind string, page store.RecordPage) ([]store.Record, error) {
	if s.readFails() {
		return nil, errSimDisk
	}
	return s.Store.PageRecords(ctx, kind, page)
}
