package pebblestore

import (
	"bytes"
	"encoding/binary"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// The layout. The first byte of a key says what it holds:
//
//	v                                       the version of this layout
//	t                                       the last term, be64
//	s <job>                                 when the job was accepted, and its spec; written once
//	j <job>                                 the last state of an ended job; written once
//	h <number be64>                         what one commit did to unfinished jobs, see hot.go
//	x <namespace> 0 <kind> <value> 0 <job>  ids of jobs for listing, see index.go
//	r <6 hours be32> <request id>           what a request_id made, by when it expires
//	k <kind> 0 <key>                        a small record
//	l <job> <attempt be32> <offset be64>    a log chunk
//	e <job> <attempt be32>                  the end of a log
//	q <key>                                 a value that could not be read, set aside
//
// Ids of jobs grow, so the order of keys is the order of age.
const (
	formatPrefix     = 'v'
	termPrefix       = 't'
	specPrefix       = 's'
	endedPrefix      = 'j'
	hotPrefix        = 'h'
	indexPrefix      = 'x'
	requestPrefix    = 'r'
	recordPrefix     = 'k'
	chunkPrefix      = 'l'
	logEndPrefix     = 'e'
	quarantinePrefix = 'q'
)

// jobKey appends the key of one record of a job.
func jobKey(key []byte, prefix byte, id job.ID) []byte {
	return append(append(key, prefix), id[:]...)
}

// idOf returns the id at the end of a key.
func idOf(key []byte) (id job.ID) {
	copy(id[:], key[max(len(key)-len(id), 0):])
	return id
}

func hotKey(number uint64) []byte { return binary.BigEndian.AppendUint64([]byte{hotPrefix}, number) }

func recordKey(kind, key string) []byte {
	return append(append(append([]byte{recordPrefix}, kind...), 0), key...)
}

func logKey(prefix byte, ref store.LogRef) []byte {
	return binary.BigEndian.AppendUint32(jobKey(nil, prefix, ref.Job), uint32(ref.Attempt))
}

func chunkKey(ref store.LogRef, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey(chunkPrefix, ref), offset)
}

// chunkOffset returns the offset in a chunk's key.
func chunkOffset(key []byte) (uint64, bool) {
	if len(key) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[len(key)-8:]), true
}

// after returns the first key behind all keys that begin with prefix.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
