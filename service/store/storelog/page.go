package storelog

import (
	"encoding/binary"
	"errors"
	"iter"
	"math/bits"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

const (
	// pageJobs is how many jobs a page has at most: one for each bit of a positions.
	pageJobs = 64
	// pageBytes is the size beyond which a page takes no further job, so that reading one job never means reading much more.
	pageBytes = 32 << 10
)

// errDamaged is the error for every record that ends too early or contradicts itself.
var errDamaged = errors.New("the record is damaged")

// positions is a set of positions in a page, one bit for each.
type positions uint64

func (p positions) has(i int) bool { return p>>i&1 != 0 }
func (p positions) count() int     { return bits.OnesCount64(uint64(p)) }

// up yields the positions from the first on.
func (p positions) up() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; p != 0; p &= p - 1 {
			if !yield(bits.TrailingZeros64(uint64(p))) {
				return
			}
		}
	}
}

// down yields the positions from the last on.
func (p positions) down() iter.Seq[int] {
	return func(yield func(int) bool) {
		for p != 0 {
			i := bits.Len64(uint64(p)) - 1
			if !yield(i) {
				return
			}
			p &^= 1 << i
		}
	}
}

// appendID writes an id as how many of its first bytes are those of the id before it, and the rest.
func appendID(b []byte, before, id job.ID) []byte {
	same := 0
	for same < len(id) && id[same] == before[same] {
		same++
	}
	return append(append(b, byte(same)), id[same:]...)
}

// cutID reads what appendID wrote.
func cutID(b []byte, before job.ID) (id job.ID, rest []byte, err error) {
	if len(b) == 0 || int(b[0]) > len(id) || len(b) < 1+len(id)-int(b[0]) {
		return id, nil, errDamaged
	}
	id = before
	n := copy(id[b[0]:], b[1:])
	return id, b[1+n:], nil
}

// appendValue writes a record with its length before it.
func appendValue(b []byte, write func([]byte) []byte) []byte {
	at := len(b)
	b = write(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// cutValue reads what appendValue wrote.
func cutValue(b []byte) (value, rest []byte, err error) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, errDamaged
	}
	n := 4 + binary.BigEndian.Uint32(b)
	return b[4:n:n], b[n:], nil
}

// A page has for each job its id and its record of acceptance, which is empty when the job was removed.

func appendPageJob(b []byte, before job.ID, j *job.Job) []byte {
	return appendValue(appendID(b, before, j.ID), func(b []byte) []byte { return appendAccepted(b, j) })
}

// pageJob is a job of a page, as it was accepted.
type pageJob struct {
	id       job.ID
	accepted []byte // empty: it was removed
}

// readPage reads a page's value.
func readPage(value []byte) ([]pageJob, error) {
	b, err := unpack(value)
	if err != nil {
		return nil, err
	}
	jobs := make([]pageJob, 0, pageJobs)
	var id job.ID
	for len(b) > 0 {
		var accepted []byte
		if id, b, err = cutID(b, id); err != nil {
			return nil, err
		}
		if accepted, b, err = cutValue(b); err != nil {
			return nil, err
		}
		if len(jobs) == pageJobs {
			return nil, errDamaged
		}
		jobs = append(jobs, pageJob{id, accepted})
	}
	return jobs, nil
}

// without returns the page's value without some of its jobs; the others keep their positions.
func without(jobs []pageJob, gone positions) []byte {
	var b []byte
	var before job.ID
	for i, j := range jobs {
		b = appendValue(appendID(b, before, j.id), func(b []byte) []byte {
			if gone.has(i) {
				return b
			}
			return append(b, j.accepted...)
		})
		before = j.id
	}
	return pack(nil, b)
}

// Endings are the positions, and the last state of each.

func appendEndings(b []byte, ended positions, jobs iter.Seq[*job.Job]) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(ended))
	for j := range jobs {
		b = appendValue(b, func(b []byte) []byte { return storerecord.AppendState(b, j) })
	}
	return b
}

// readEndings reads endings into the states by position, and returns which it has.
func readEndings(value []byte, states *[pageJobs][]byte) (positions, error) {
	b, err := unpack(value)
	if err != nil || len(b) < 8 {
		return 0, errDamaged
	}
	ended := positions(binary.BigEndian.Uint64(b))
	b = b[8:]
	for i := range ended.up() {
		if states[i], b, err = cutValue(b); err != nil {
			return 0, err
		}
	}
	return ended, nil
}
