package job

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// ID names a job: a ULID, which is the time of its making in milliseconds (6 bytes) and chance (10 bytes). Ids grow in
// the order in which jobs are accepted. In text it is "job_" and 26 characters of Crockford's base 32 in lower case. The zero ID names none.
type ID [16]byte

const (
	idPrefix = "job_"
	idDigits = 26
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// NewID makes an id of a time and two pieces of chance; ids of one time are in the order of high, then low.
func NewID(at time.Time, high uint16, low uint64) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:], uint64(at.UnixMilli())<<16|uint64(high))
	binary.BigEndian.PutUint64(id[8:], low)
	return id
}

// String returns the id in text.
func (id ID) String() string {
	var text [len(idPrefix) + idDigits]byte
	copy(text[:], idPrefix)
	high, low := binary.BigEndian.Uint64(id[:]), binary.BigEndian.Uint64(id[8:])
	for i := len(text) - 1; i >= len(idPrefix); i-- {
		text[i] = alphabet[low&31]
		low, high = low>>5|high<<59, high>>5
	}
	return string(text[:])
}

// digits holds the value of each character; 0xff for those that are none.
var digits = func() (d [256]byte) {
	for i := range d {
		d[i] = 0xff
	}
	for i := range len(alphabet) {
		d[alphabet[i]] = byte(i)
	}
	return d
}()

// ParseID reads an id from text. What no job can be named gives the error for a job that is not there.
func ParseID(text string) (ID, error) {
	var id ID
	if len(text) != len(idPrefix)+idDigits || text[:len(idPrefix)] != idPrefix || text[len(idPrefix)] > '7' {
		return id, NotFound(text)
	}
	var high, low uint64
	for i := len(idPrefix); i < len(text); i++ {
		d := digits[text[i]]
		if d == 0xff {
			return id, NotFound(text)
		}
		high, low = high<<5|low>>59, low<<5|uint64(d)
	}
	binary.BigEndian.PutUint64(id[:], high)
	binary.BigEndian.PutUint64(id[8:], low)
	return id, nil
}

// NotFound is the error about a job that is not there.
func NotFound(id string) error {
	return Errorf(CodeNotFound, ReasonJobNotFound, "there is no job %q; `hodei job list` shows those that are known", id)
}

// Time returns when the id was made.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:]) >> 16)).UTC()
}

// Plus returns the id that is so much larger.
func (id ID) Plus(n uint64) ID {
	high, low := binary.BigEndian.Uint64(id[:]), binary.BigEndian.Uint64(id[8:])
	sum, carry := bits.Add64(low, n, 0)
	binary.BigEndian.PutUint64(id[:], high+carry)
	binary.BigEndian.PutUint64(id[8:], sum)
	return id
}

// IsZero reports whether the id names no job.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by age, the oldest first.
func (id ID) Compare(other ID) int {
	a, b := binary.BigEndian.Uint64(id[:]), binary.BigEndian.Uint64(other[:])
	if a == b {
		a, b = binary.BigEndian.Uint64(id[8:]), binary.BigEndian.Uint64(other[8:])
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
