package pebblestore

import (
	"bytes"
	"encoding/binary"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// The layout. The first byte of a key says what it holds:
//
//	F                                       the version of this layout
//	T                                       the last term, be64
//	J <job> a                               when the job was accepted, and its spec; written once
//	J <job> z                               the last state of an ended job; written once
//	L <job> <attempt be32> c <offset be64>  a log chunk
//	L <job> <attempt be32> e                the end of a log
//	h <number be64>                         what one commit did to unfinished jobs, see storelog.Hot
//	k <kind> 0 <key>                        a small record
//	q <key>                                 a value that could not be read, set aside
//	r <6 hours be32> <request id>           what a request_id made, by when it expires
//	x <namespace> 0 <kind> <value> 0 <job>  ids of jobs for listing, see storelog.ListKey
//
// Ids of jobs grow, so the order of keys is the order of age, and what is written at one time lies together: compactions
// find little below that overlaps with what is new.
const (
	formatPrefix     = 'F'
	termPrefix       = 'T'
	jobPrefix        = 'J'
	logPrefix        = 'L'
	hotPrefix        = 'h'
	recordPrefix     = 'k'
	quarantinePrefix = 'q'
	requestPrefix    = 'r'
	indexPrefix      = 'x'
)

// Parts of a job and of a log.
const (
	partAccepted = 'a'
	partEnded    = 'z'
	partChunk    = 'c'
	partEnd      = 'e'
)

// idPrefix appends the beginning of all keys of a job, in one of the two ranges that are by job.
func idPrefix(key []byte, prefix byte, id job.ID) []byte {
	return append(append(key, prefix), id[:]...)
}

// jobKey appends the key of one record of a job.
func jobKey(key []byte, id job.ID, part byte) []byte {
	return append(idPrefix(key, jobPrefix, id), part)
}

// jobOf returns the job and the part of it that a key of the range of jobs names.
func jobOf(key []byte) (id job.ID, part byte) {
	if len(key) == 2+len(id) {
		copy(id[:], key[1:])
		part = key[len(key)-1]
	}
	return id, part
}

// idOf returns the id at the end of a key.
func idOf(key []byte) (id job.ID) {
	copy(id[:], key[max(len(key)-len(id), 0):])
	return id
}

func hotKey(number uint64) []byte { return binary.BigEndian.AppendUint64([]byte{hotPrefix}, number) }

func listPrefix(key storelog.ListKey) []byte { return append([]byte{indexPrefix}, key.Bytes()...) }

func postingKey(key storelog.ListKey, last job.ID) []byte { return append(listPrefix(key), last[:]...) }

func recordKey(kind, key string) []byte {
	return append(append(append([]byte{recordPrefix}, kind...), 0), key...)
}

func logKey(ref store.LogRef, part byte) []byte {
	return append(binary.BigEndian.AppendUint32(idPrefix(nil, logPrefix, ref.Job), uint32(ref.Attempt)), part)
}

func chunkKey(ref store.LogRef, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey(ref, partChunk), offset)
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
