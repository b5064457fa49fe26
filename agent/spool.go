package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// spool keeps the output of an attempt on the disk until the server has it.
//
// The output is one sequence of bytes, cut into records that know their step, stream and time. Records lie in segment files
// named for the offset at which they begin. What the server has acknowledged is deleted a segment at a time. One goroutine
// writes for each stream, one reads.
type spool struct {
	spoolConfig

	mu       sync.Mutex
	room     *sync.Cond // something was acknowledged, or the spool is being closed
	segments []*segment
	end      uint64 // bytes written
	acked    uint64
	totals   map[streamKey]*streamTotal
	closed   bool // no more writes
	missing  string
	dropped  bool // the server does not want it

	// Of the reader.
	reading  *segment
	position int64  // in the file of reading
	sent     uint64 // bytes read
	sequence uint64
	counted  int64 // this spool's part of flying
}

// spoolConfig says where a spool lies, and who is told what.
type spoolConfig struct {
	dir    string
	limit  int64         // of bytes that were not acknowledged
	flying *atomic.Int64 // the sum over all spools of what was sent and not acknowledged
	ready  func()        // there may be something to send; called with the lock held
}

type segment struct {
	start, end uint64
	file       *os.File
	size       int64
}

type streamKey struct {
	step   int32
	stream hwpv1.LogStream
}

type streamTotal struct {
	bytes uint64
	hash  hash.Hash
}

const (
	segmentBytes = 8 << 20
	// recordHeader is: length (4), checksum of the rest (4), step (4), stream (1), nanoseconds (8); the data follows.
	recordHeader = 21
	// maxRecord bounds what a damaged length can make us read.
	maxRecord = 1 << 20
)

// errDropped tells a writer that nobody wants the output any more.
var errDropped = errors.New("the output is not wanted any more")

// openSpool opens a spool with what a former life of the agent has left in it.
func openSpool(config spoolConfig) (*spool, error) {
	s := newSpool(config)
	names, err := filepath.Glob(filepath.Join(config.dir, "*.log"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := s.adopt(name); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(s.segments, func(a, b *segment) int { return int(int64(a.start) - int64(b.start)) })
	if n := len(s.segments); n > 0 {
		s.end, s.acked = s.segments[n-1].end, s.segments[0].start
	}
	s.seek(s.acked)
	return s, nil
}

// newSpool makes an empty spool; its folder is made with the first byte.
func newSpool(config spoolConfig) *spool {
	s := &spool{spoolConfig: config, totals: make(map[streamKey]*streamTotal)}
	s.room = sync.NewCond(&s.mu)
	return s
}

// adopt takes in a segment of a former life and cuts a torn record off its end.
func (s *spool) adopt(name string) error {
	base := filepath.Base(name)
	start, err := strconv.ParseUint(base[:len(base)-len(".log")], 10, 64)
	if err != nil {
		return nil //nolint:nilerr // not one of ours
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening spooled output: %w", err)
	}
	g := &segment{start: start, end: start, file: file}
	for {
		r, err := g.read(g.size)
		if err != nil {
			break
		}
		g.end += uint64(len(r.data))
		g.size += recordHeader + int64(len(r.data))
	}
	s.segments = append(s.segments, g)
	return file.Truncate(g.size)
}

// record is a piece of output.
type record struct {
	key  streamKey
	time int64
	data []byte
}

func encodeRecord(r record) []byte {
	b := make([]byte, recordHeader, recordHeader+len(r.data))
	binary.BigEndian.PutUint32(b, uint32(len(r.data)))
	binary.BigEndian.PutUint32(b[8:], uint32(r.key.step))
	b[12] = byte(r.key.stream)
	binary.BigEndian.PutUint64(b[13:], uint64(r.time))
	b = append(b, r.data...)
	binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:]))
	return b
}

// read reads the record at a position of the segment's file; io.EOF when there is no whole one.
func (g *segment) read(position int64) (record, error) {
	header := make([]byte, recordHeader)
	if _, err := g.file.ReadAt(header, position); err != nil {
		return record{}, io.EOF
	}
	length := binary.BigEndian.Uint32(header)
	if length > maxRecord {
		return record{}, io.EOF
	}
	body := make([]byte, recordHeader-8+int(length))
	if _, err := g.file.ReadAt(body, position+8); err != nil || crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(header[4:]) {
		return record{}, io.EOF
	}
	return record{
		key:  streamKey{int32(binary.BigEndian.Uint32(body)), hwpv1.LogStream(body[4])},
		time: int64(binary.BigEndian.Uint64(body[5:])),
		data: body[recordHeader-8:],
	}, nil
}

// write appends output. When the spool is full it waits, and with it the process that writes. The error is errDropped, or
// the disk's: then nothing was written and the same write may be tried again.
func (s *spool) write(step int32, stream hwpv1.LogStream, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.dropped && int64(s.end-s.acked)+int64(len(data)) > s.limit && s.end > s.acked {
		s.room.Wait()
	}
	if s.dropped {
		return errDropped
	}
	r := record{key: streamKey{step, stream}, time: time.Now().UnixNano(), data: data}
	if err := s.append(r); err != nil {
		return err
	}
	total := s.totals[r.key]
	if total == nil {
		total = &streamTotal{hash: sha256.New()}
		s.totals[r.key] = total
	}
	total.bytes += uint64(len(data))
	_, _ = total.hash.Write(data) // never fails
	s.ready()
	return nil
}

// append writes a record to the last segment; a record that was written in part is cut off again.
func (s *spool) append(r record) error {
	n := len(s.segments)
	if n == 0 || s.segments[n-1].size >= segmentBytes {
		file, err := s.create()
		if err != nil {
			return fmt.Errorf("making a file for output: %w", err)
		}
		s.segments = append(s.segments, &segment{start: s.end, end: s.end, file: file})
		n++
	}
	g := s.segments[n-1]
	encoded := encodeRecord(r)
	if _, err := g.file.WriteAt(encoded, g.size); err != nil {
		return errors.Join(fmt.Errorf("writing output to %s: %w", g.file.Name(), err), g.file.Truncate(g.size))
	}
	g.size += int64(len(encoded))
	g.end += uint64(len(r.data))
	s.end = g.end
	if s.reading == nil {
		s.reading, s.position = g, g.size-int64(len(encoded))
	}
	return nil
}

// create makes the file of the next segment.
func (s *spool) create() (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(s.dir, strconv.FormatUint(s.end, 10)+".log"), os.O_CREATE|os.O_RDWR, 0o600)
}

// account keeps this spool's part of flying right; the caller holds the lock.
func (s *spool) account() {
	flying := int64(s.sent - min(s.acked, s.sent))
	s.flying.Add(flying - s.counted)
	s.counted = flying
}

// close says that there will be no more output. missing says why some may be lost, empty when none is.
func (s *spool) close(missing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.missing = true, missing
	s.ready()
}

// seek makes the reader go on at an offset, or a little before it at the beginning of a record: the server takes each byte
// once, whatever arrives.
func (s *spool) seek(offset uint64) {
	s.reading, s.position, s.sent = nil, 0, s.end
	for i, g := range s.segments {
		if offset < g.end || i == len(s.segments)-1 {
			s.reading, s.sent = g, g.start
			break
		}
	}
	for s.reading != nil && s.sent < offset {
		r, err := s.reading.read(s.position)
		if err != nil || s.sent+uint64(len(r.data)) > offset {
			return
		}
		s.sent += uint64(len(r.data))
		s.position += recordHeader + int64(len(r.data))
	}
}

// resume is seek for a new session.
func (s *spool) resume(offset uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acknowledgeLocked(offset)
	s.seek(offset)
	s.account()
	s.ready()
}

// next returns the next piece to send and where it begins, nil when there is none. Pieces of one step and stream that
// follow each other are joined up to limit bytes.
func (s *spool) next(limit int) (*record, uint64, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var joined *record
	start := s.sent
	for s.sent < s.end && s.reading != nil {
		if s.position >= s.reading.size {
			if !s.advance() {
				break
			}
			continue
		}
		r, err := s.reading.read(s.position)
		if err != nil {
			break
		}
		if joined != nil && (joined.key != r.key || len(joined.data)+len(r.data) > limit) {
			break
		}
		if joined == nil {
			joined = &r
		} else {
			joined.data = append(joined.data, r.data...)
		}
		s.position += recordHeader + int64(len(r.data))
		s.sent += uint64(len(r.data))
	}
	if joined != nil {
		s.sequence++
		s.account()
	}
	return joined, start, s.sequence
}

// advance moves the reader to the next segment.
func (s *spool) advance() bool {
	i := slices.Index(s.segments, s.reading)
	if i < 0 || i+1 == len(s.segments) {
		return false
	}
	s.reading, s.position = s.segments[i+1], 0
	return true
}

// acknowledge deletes what the server has.
func (s *spool) acknowledge(offset uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acknowledgeLocked(offset)
	s.account()
}

func (s *spool) acknowledgeLocked(offset uint64) {
	if offset <= s.acked {
		return
	}
	s.acked = min(offset, s.end)
	for len(s.segments) > 1 && s.segments[0].end <= s.acked {
		g := s.segments[0]
		if s.reading == g {
			s.advance()
		}
		s.segments = s.segments[1:]
		_ = g.file.Close()
		_ = os.Remove(g.file.Name()) // what is left is removed with the folder
	}
	s.room.Broadcast()
}

// logEnd returns the end of the log once everything was sent, nil before.
func (s *spool) logEnd() *hwpv1.LogEnd {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed || s.sent < s.end {
		return nil
	}
	end := &hwpv1.LogEnd{TotalBytes: s.end, Missing: s.missing}
	for key, total := range s.totals {
		end.Streams = append(end.Streams, &hwpv1.StreamTotal{
			Step: key.step, Stream: key.stream, TotalBytes: total.bytes, Sha256: total.hash.Sum(nil),
		})
	}
	slices.SortFunc(end.Streams, func(a, b *hwpv1.StreamTotal) int {
		return bytes.Compare([]byte{byte(a.GetStep()), byte(a.GetStream())}, []byte{byte(b.GetStep()), byte(b.GetStream())})
	})
	return end
}

// drop deletes everything and lets writers go.
func (s *spool) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = true
	for _, g := range s.segments {
		_ = g.file.Close()
	}
	s.acked = s.sent
	s.account()
	s.room.Broadcast()
	if len(s.segments) > 0 {
		_ = os.RemoveAll(s.dir)
	}
	s.segments, s.reading = nil, nil
}
