package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	totals   totals
	unproven bool   // what a former life wrote is not known for every stream
	encoded  []byte // memory for a record
	closed   bool   // no more writes
	missing  string
	dropped  bool // the server does not want it

	// Of the reader.
	reading  *segment
	position int64  // in the file of reading
	sent     uint64 // bytes read
	sequence uint64
	fresh    record // the next one to read, if it is small and was just written
	counted  int64  // this spool's part of flying
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

const (
	segmentBytes = 8 << 20
	// recordHeader is: length (4), checksum of the rest (4), step (4), stream (1), nanoseconds (8); the data follows.
	recordHeader = 21
	// maxRecord bounds what a damaged length can make us read.
	maxRecord = 1 << 20
)

// errDropped tells a writer that nobody wants the output any more.
var errDropped = errors.New("the output is not wanted any more")

// openSpool opens a spool with what a former life of the agent has left in it: a true prefix of what was written.
func openSpool(config spoolConfig) (*spool, error) {
	s := newSpool(config)
	starts, err := segmentStarts(config.dir)
	if err != nil {
		return nil, err
	}
	for i, start := range starts {
		if i > 0 && start != s.end { // what came before was not on the disk when the machine ended
			if err := removeSegments(config.dir, starts[i:]); err != nil {
				return nil, err
			}
			break
		}
		if err := s.adopt(start); err != nil {
			return nil, err
		}
	}
	if len(s.segments) > 0 {
		s.acked = s.segments[0].start
	}
	s.seek(s.acked)
	return s, nil
}

// segmentStarts returns where the segments in a folder begin, in order.
func segmentStarts(dir string) ([]uint64, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		return nil, err
	}
	var starts []uint64
	for _, name := range names {
		start, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), segmentSuffix), 10, 64)
		if err == nil { // else it is not one of ours
			starts = append(starts, start)
		}
	}
	slices.Sort(starts)
	return starts, nil
}

const segmentSuffix = ".log"

func segmentPath(dir string, start uint64) string {
	return filepath.Join(dir, strconv.FormatUint(start, 10)+segmentSuffix)
}

func removeSegments(dir string, starts []uint64) error {
	var problems []error
	for _, start := range starts {
		problems = append(problems, os.Remove(segmentPath(dir, start)))
	}
	return errors.Join(problems...)
}

// newSpool makes an empty spool; its folder is made with the first byte.
func newSpool(config spoolConfig) *spool {
	s := &spool{spoolConfig: config, totals: make(totals)}
	s.room = sync.NewCond(&s.mu)
	return s
}

// adopt takes in the next segment of a former life and cuts a torn record off its end.
func (s *spool) adopt(start uint64) error {
	file, err := os.OpenFile(segmentPath(s.dir, start), os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening spooled output: %w", err)
	}
	g := &segment{start: start, end: start, file: file}
	known := len(s.segments) > 0
	for {
		r, err := g.read(g.size)
		if err != nil {
			break
		}
		switch {
		case r.key.stream != checkpoint:
			s.totals.add(r)
			g.end += uint64(len(r.data))
		case !known:
			known = s.totals.restore(r.data)
		}
		g.size += recordHeader + int64(len(r.data))
	}
	s.unproven = s.unproven || !known
	s.segments, s.end = append(s.segments, g), g.end
	return file.Truncate(g.size)
}

// record is a piece of output.
type record struct {
	key  streamKey
	time int64
	data []byte
}

func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.data)))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.key.step))
	b = append(b, byte(r.key.stream))
	b = binary.BigEndian.AppendUint64(b, uint64(r.time))
	b = append(b, r.data...)
	binary.BigEndian.PutUint32(b[start+4:], crc32.ChecksumIEEE(b[start+8:]))
	return b
}

// output is how many bytes of output the record has.
func (r *record) output() uint64 {
	if r.key.stream == checkpoint {
		return 0
	}
	return uint64(len(r.data))
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
	s.totals.add(r)
	s.ready()
	return nil
}

// append writes a record to the last segment; a record that was written in part is cut off again.
func (s *spool) append(r record) error {
	if n := len(s.segments); n == 0 || s.segments[n-1].size >= segmentBytes {
		g, err := s.create()
		if err != nil {
			return fmt.Errorf("making a file for output: %w", err)
		}
		s.segments = append(s.segments, g)
	}
	g := s.segments[len(s.segments)-1]
	position := g.size
	if err := s.put(g, r); err != nil {
		return err
	}
	g.end += uint64(len(r.data))
	s.end = g.end
	if s.reading == nil {
		s.reading, s.position = g, position
	}
	if s.reading == g && s.position == position && len(r.data) <= freshBytes {
		s.fresh = r
		s.fresh.data = slices.Clone(r.data) // the writer's memory is used again
	}
	return nil
}

// freshBytes is the most that a record has which is kept in memory to be sent, so that the file need not be read for it.
const freshBytes = 4 << 10

// peek returns the record at the reader's position.
func (s *spool) peek() (record, error) {
	if s.fresh.data == nil {
		return s.reading.read(s.position)
	}
	r := s.fresh
	s.fresh = record{} // once the reader is past it, it is another one's place
	return r, nil
}

func (s *spool) put(g *segment, r record) error {
	s.encoded = appendRecord(s.encoded[:0], r)
	if _, err := g.file.WriteAt(s.encoded, g.size); err != nil {
		return errors.Join(fmt.Errorf("writing output to %s: %w", g.file.Name(), err), g.file.Truncate(g.size))
	}
	g.size += int64(len(s.encoded))
	return nil
}

// create makes the next segment. It begins with what the streams came to before it, because the segments before it go.
func (s *spool) create() (*segment, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	path := segmentPath(s.dir, s.end)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	g := &segment{start: s.end, end: s.end, file: file}
	if s.unproven {
		return g, nil
	}
	if err := s.put(g, record{key: streamKey{stream: checkpoint}, data: s.totals.encode()}); err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(path))
	}
	return g, nil
}

// account keeps this spool's part of flying right; the caller holds the lock.
func (s *spool) account() {
	flying := int64(s.sent - min(s.acked, s.sent))
	s.flying.Add(flying - s.counted)
	s.counted = flying
}

// written returns how many bytes of output there are.
func (s *spool) written() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// close says that there will be no more output. missing says why some may be lost, empty when none is. The first call counts.
func (s *spool) close(missing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed, s.missing = true, missing
	s.ready()
}

// seek makes the reader go on at an offset, or a little before it at the beginning of a record: the server takes each byte
// once, whatever arrives.
func (s *spool) seek(offset uint64) {
	s.reading, s.position, s.sent, s.fresh = nil, 0, s.end, record{}
	for i, g := range s.segments {
		if offset < g.end || i == len(s.segments)-1 {
			s.reading, s.sent = g, g.start
			break
		}
	}
	for s.reading != nil && s.sent < offset {
		r, err := s.reading.read(s.position)
		if err != nil || s.sent+r.output() > offset {
			return
		}
		s.sent += r.output()
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
		r, err := s.peek()
		if err != nil {
			break
		}
		if r.key.stream == checkpoint {
			s.position += recordHeader + int64(len(r.data))
			continue
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
	if !s.unproven {
		end.Streams = s.totals.toProto()
	}
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
