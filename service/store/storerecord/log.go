package storerecord

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// AppendLogBlock appends the record of a block; what names it (job, attempt, offset) is in its key.
func AppendLogBlock(b []byte, l *store.LogBlock) []byte {
	b = append(b, Version)
	b = appendNumber(b, 1, uint64(l.Bytes))
	b = appendNumber(b, 2, l.Line)
	b = appendNumber(b, 3, uint64(l.Lines))
	b = appendTime(b, 4, l.Time)
	return appendBytes(b, 5, l.Data)
}

// DecodeLogBlock reads the record of a block into l. The data is a part of the record.
func DecodeLogBlock(record []byte, l *store.LogBlock) error {
	return fields(record, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			l.Bytes = uint32(v.number)
		case 2:
			l.Line = v.number
		case 3:
			l.Lines = uint32(v.number)
		case 4:
			l.Time = v.time()
		case 5:
			l.Data = v.bytes
		}
		if (num == 1 || num == 3) && v.number > math.MaxUint32 {
			return errCut
		}
		return nil
	})
}

// AppendLogEnd appends the record of a log's end, without the log's name.
func AppendLogEnd(b []byte, e *store.LogEnd) []byte {
	b = append(b, Version)
	b = appendNumber(b, 1, e.Bytes)
	b = appendString(b, 2, e.Missing)
	for i := range e.Streams {
		s := &e.Streams[i]
		b = appendMessage(b, 3, func(b []byte) []byte {
			b = appendNumber(b, 1, s.Step)
			b = appendNumber(b, 2, s.Stream)
			b = appendNumber(b, 3, s.Bytes)
			return appendBytes(b, 4, s.SHA256[:])
		})
	}
	return appendString(b, 4, e.Removed)
}

// DecodeLogEnd reads the record of a log's end.
func DecodeLogEnd(record []byte, ref store.LogRef) (*store.LogEnd, error) {
	e := &store.LogEnd{Ref: ref}
	err := fields(record, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			e.Bytes = v.number
		case 2:
			e.Missing = string(v.bytes)
		case 3:
			return addTotal(e, v.bytes)
		case 4:
			e.Removed = string(v.bytes)
		}
		return nil
	})
	return e, err
}

func addTotal(e *store.LogEnd, b []byte) error {
	var s store.StreamTotal
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			s.Step = v.int32()
		case 2:
			s.Stream = store.Stream(v.number)
		case 3:
			s.Bytes = v.number
		case 4:
			copy(s.SHA256[:], v.bytes)
		}
		return nil
	})
	e.Streams = append(e.Streams, s)
	return err
}

// AppendRequest appends the record of a request, without its id.
func AppendRequest(b []byte, r *store.Request) []byte {
	b = append(b, Version)
	b = appendBytes(b, 1, r.Hash[:])
	for i := range r.Jobs {
		b = appendBytes(b, 2, r.Jobs[i][:])
	}
	return appendTime(b, 3, r.Expires)
}

// DecodeRequest reads the record of a request.
func DecodeRequest(record []byte, id string) (store.Request, error) {
	r := store.Request{ID: id}
	err := fields(record, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			copy(r.Hash[:], v.bytes)
		case 2:
			if len(v.bytes) != len(job.ID{}) {
				return errCut
			}
			r.Jobs = append(r.Jobs, job.ID(v.bytes))
		case 3:
			r.Expires = v.time()
		}
		return nil
	})
	return r, err
}
