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
//	J <page> a                              a page of jobs as they were accepted, see storelog; written once
//	J <page> z <commit be64>                how jobs of the page ended, those of one commit; written once
//	L <job> <attempt be32> c <offset be64>  a block of a log
//	L <job> <attempt be32> e                the end of a log
//	h <commit be64>                         what one commit did to unfinished jobs
//	k <kind> 0 <key>                        a small record
//	q <key>                                 a value that could not be read, set aside
//	r <6 hours be32> <request id>           what a request_id made, by when it expires
//	x <list> <page>                         which jobs of a page are on a list
//	x <list> <page> <commit be64>           likewise for lists of ended jobs, those of one commit
//
// Ids of jobs and pages grow, so the order of keys is the order of age, and what is written at one time lies together:
// compactions find little below that overlaps with what is new.
const (
	formatPrefix     = 'F'
	termPrefix       = 'T'
	jobPrefix        = 'J'
	logPrefix        = 'L'
	blockPrefix      = 'h'
	recordPrefix     = 'k'
	quarantinePrefix = 'q'
	requestPrefix    = 'r'
	listPrefix       = 'x'
)

// Parts of a page and of a log.
const (
	partAccepted = 'a'
	partEnded    = 'z'
	partBlock    = 'c'
	partEnd      = 'e'
)

const idBytes = len(job.ID{})

// idPrefix appends the beginning of all keys of a page or of the logs of a job.
func idPrefix(key []byte, prefix byte, id job.ID) []byte {
	return append(append(key, prefix), id[:]...)
}

func pageKey(key []byte, page job.ID) []byte {
	return append(idPrefix(key, jobPrefix, page), partAccepted)
}

func endingsKey(key []byte, page job.ID, commit uint64) []byte {
	return binary.BigEndian.AppendUint64(append(idPrefix(key, jobPrefix, page), partEnded), commit)
}

// pageOf returns the page and the part of it that a key of the range of pages names; part 0 is none.
func pageOf(key []byte) (page job.ID, part byte) {
	if len(key) < 2+idBytes {
		return page, 0
	}
	return job.ID(key[1:]), key[1+idBytes]
}

func blockKey(commit uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{blockPrefix}, commit)
}

func listKey(key []byte, list storelog.List) []byte { return list.Append(append(key, listPrefix)) }

func listingKey(key []byte, l *storelog.Listing, commit uint64) []byte {
	key = append(listKey(key, l.List), l.Page[:]...)
	if l.Ended() {
		key = binary.BigEndian.AppendUint64(key, commit)
	}
	return key
}

func recordKey(kind, key string) []byte {
	return append(append(append([]byte{recordPrefix}, kind...), 0), key...)
}

func logKey(ref store.LogRef, part byte) []byte {
	return append(binary.BigEndian.AppendUint32(idPrefix(nil, logPrefix, ref.Job), uint32(ref.Attempt)), part)
}

func logBlockKey(ref store.LogRef, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey(ref, partBlock), offset)
}

// blockOffset returns the offset in the key of a log's block.
func blockOffset(key []byte) (uint64, bool) {
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
