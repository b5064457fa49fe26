package chain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// verifier goes through an export line by line. A copy goes on by itself as long as no checkpoints are given apart.
type verifier struct {
	keys   []ed25519.PublicKey
	report Report
	line   uint64

	begun      bool
	seq        uint64 // of the last record in order
	hash       Hash   // of its line
	unreadable uint64 // lines since then that may have been records
	closing    *Checkpoint
	owed       *Checkpoint // one in the export that vouches for records that have not come yet
	apart      apart
}

// apart reads the checkpoints that were kept apart, one ahead.
type apart struct {
	lines *lines // nil: there are none
	line  uint64
	next  *Checkpoint // nil: there are no more
	last  *Checkpoint // the one before
}

func (v *verifier) problem(seq uint64, format string, args ...any) {
	v.report.problem(Problem{Input: InRecords, Line: v.line, Seq: seq, Text: fmt.Sprintf(format, args...)})
}

func (v *verifier) problemApart(seq uint64, format string, args ...any) {
	v.report.problem(Problem{Input: InCheckpoints, Line: v.apart.line, Seq: seq, Text: fmt.Sprintf(format, args...)})
}

// take looks at the next line of the export.
func (v *verifier) take(line []byte, whole bool) error {
	v.line++
	if !whole {
		v.problem(0, "line %d has no end: the export was cut", v.line)
	}
	if bytes.HasPrefix(line, []byte(checkpointStart)) {
		return v.checkpoint(line)
	}
	r, err := ParseRecord(line)
	if err != nil {
		v.problem(0, "line %d is not a record: %v", v.line, err)
		v.unreadable++
		return nil
	}
	return v.record(&r, sha256.Sum256(line))
}

func (v *verifier) record(r *Record, hash Hash) error {
	v.report.Records++
	if v.owed != nil && r.Seq <= v.owed.Seq {
		v.problem(r.Seq, "%v, which vouches for record %d, stands before record %d", v.owed, v.owed.Seq, r.Seq)
	}
	v.owed = nil
	if !v.begun {
		v.begun, v.seq, v.hash = true, r.Seq-1, r.Prev
		if r.Seq == 1 {
			v.hash = Hash{}
		}
		if err := v.compareApart(); err != nil {
			return err
		}
	}
	next := v.seq + 1
	switch {
	case r.Seq < next:
		v.problem(r.Seq, "record %d is out of order: it stands behind record %d", r.Seq, v.seq)
		return nil
	case r.Seq > next+v.unreadable:
		v.problem(next, "%s missing", records(next, r.Seq-1))
	case v.unreadable == 0 && r.Prev != v.hash:
		v.changed(r)
	}
	if v.report.First == 0 {
		v.report.First = r.Seq
	}
	v.report.Last, v.seq, v.hash, v.unreadable = r.Seq, r.Seq, hash, 0
	return v.compareApart()
}

func (v *verifier) changed(r *Record) {
	if v.seq == 0 {
		v.problem(r.Seq, "record 1 does not begin the trail: it follows another one")
		return
	}
	v.problem(v.seq, "record %d was changed: record %d follows another one", v.seq, r.Seq)
}

// checkpoint looks at one that stands in the export.
func (v *verifier) checkpoint(line []byte) error {
	c, err := ParseCheckpoint(line, v.keys...)
	if err != nil {
		v.problem(c.Seq, "line %d is not a checkpoint of this trail: %v", v.line, err)
		return nil
	}
	before := v.closing
	v.closing = &c
	if !v.begun {
		v.begun, v.seq, v.hash = true, c.Seq, c.Hash
	}
	switch {
	case before != nil && c.Seq <= before.Seq || c.Seq < v.seq:
		v.problem(c.Seq, "%v, which vouches for record %d, is out of order", &c, c.Seq)
	case c.Seq > v.seq:
		v.owed = &c
	case c.Hash != v.hash:
		v.problem(c.Seq, "record %d was changed, or one before it: %v vouches for another one", c.Seq, &c)
	default:
		v.vouched(&c)
	}
	return v.compareApart()
}

func (v *verifier) vouched(c *Checkpoint) {
	v.report.Checkpoints++
	if v.report.Records > 0 {
		v.report.Vouched = max(v.report.Vouched, c.Seq)
	}
}

// compareApart compares the record that was taken last with the checkpoints that were kept apart.
func (v *verifier) compareApart() error {
	for v.apart.next != nil && v.apart.next.Seq <= v.seq {
		c := v.apart.next
		switch {
		case c.Seq < v.seq: // of records before the export, or of such as are missing
		case c.Hash != v.hash:
			v.problemApart(c.Seq, "record %d was changed, or one before it: %v vouches for another one", c.Seq, c)
		default:
			v.vouched(c)
		}
		if err := v.nextApart(); err != nil {
			return err
		}
	}
	return nil
}

// nextApart reads the next checkpoint that was kept apart and that can be used.
func (v *verifier) nextApart() error {
	a := &v.apart
	a.last, a.next = a.next, nil
	for {
		line, _, err := a.lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a.line++
		c, signature, err := decodeCheckpoint(line)
		if err != nil { // not of somebody who wants to hide something: they would remove the line
			v.warn("line %d of the checkpoints cannot be read, as after a crash: %v", a.line, err)
			continue
		}
		switch err := c.check(signature, v.keys); {
		case err != nil:
			v.problemApart(c.Seq, "line %d of the checkpoints: %v", a.line, err)
		case a.last != nil && c.Seq < a.last.Seq:
			v.problemApart(c.Seq, "the trail was set back: %v vouches for %d records, and %v before it for %d", &c, c.Seq, a.last, a.last.Seq)
		default:
			a.next = &c
			return nil
		}
	}
}

func (v *verifier) warn(format string, args ...any) {
	if len(v.report.Warnings) < maxProblems {
		v.report.Warnings = append(v.report.Warnings, fmt.Sprintf(format, args...))
	}
}

// finish looks for what is missing at the ends.
func (v *verifier) finish() error {
	v.line++
	begin := v.report.First
	if v.report.Records == 0 {
		begin = v.seq + 1
	}
	if c := v.closing; c != nil && c.First < begin {
		v.problem(c.First, "%s missing: %v says that they were there", records(c.First, begin-1), c)
	}
	if c := v.owed; c != nil {
		v.cut(c)
	}
	for v.apart.next != nil {
		if err := v.nextApart(); err != nil {
			return err
		}
	}
	if c := v.apart.last; c != nil && c.Seq > v.seq {
		v.cut(c)
	}
	if v.report.Last > v.report.Vouched {
		v.warn("%s behind the last checkpoint, and nobody vouches for them", records(max(v.report.Vouched+1, v.report.First), v.report.Last))
	}
	return nil
}

func (v *verifier) cut(c *Checkpoint) {
	v.problem(v.seq+1, "the tail is cut: %v says that there were %d records, and the export ends with %d", c, c.Seq, v.seq)
}
