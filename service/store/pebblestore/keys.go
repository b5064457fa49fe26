package pebblestore

import (
	"bytes"
	"encoding/binary"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// The layout. The first byte of a key says what it holds:
//
//	v                                     the version of this layout
//	s <job>                               spec of a job, written once
//	j <job>                               state of a job
//	u <job>                               (empty) the job has not ended
//	n <namespace> 0 <job>                 (empty) index for listing
//	r <request id>                        what a request_id made
//	k <kind> 0 <key>                      a small record
//	l <job> 0 <attempt be32> <offset be64>  a log chunk
//	e <job> 0 <attempt be32>              the end of a log
//	q <key>                               a value that could not be read, set aside
//
// Ids of jobs grow, so the order of keys is the order of age.
var formatKey = []byte{'v'}

func specKey(id job.ID) []byte       { return append([]byte{'s'}, id...) }
func stateKey(id job.ID) []byte      { return append([]byte{'j'}, id...) }
func unfinishedKey(id job.ID) []byte { return append([]byte{'u'}, id...) }
func requestKey(id string) []byte    { return append([]byte{'r'}, id...) }

func namespacePrefix(namespace string) []byte { return append(append([]byte{'n'}, namespace...), 0) }

func namespaceKey(namespace string, id job.ID) []byte {
	return append(namespacePrefix(namespace), id...)
}

func recordKey(kind, key string) []byte {
	return append(append(append([]byte{'k'}, kind...), 0), key...)
}

func logKey(kind byte, ref store.LogRef) []byte {
	key := append(append([]byte{kind}, ref.Job...), 0)
	return binary.BigEndian.AppendUint32(key, uint32(ref.Attempt))
}

func chunkKey(ref store.LogRef, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey('l', ref), offset)
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
