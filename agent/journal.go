package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// journal is what the agent must not forget: the attempts that it has taken and not settled, and how they ended.
//
// It is a file that is only appended to, a block of entries at a time; a block has a length and a checksum, and a torn one
// at the end, from a crash, is cut off. Nothing is synced: what was written survives the end of the agent, and for the end
// of the machine the journal begins with the boot that it was written in, so that the agent knows when it may have
// forgotten something. When everything in it is settled, and it is large, the file begins anew.
type journal struct {
	mu     sync.Mutex
	file   *os.File
	boot   string
	size   int64
	live   func() []journaled // what counts; set before anything is written
	buffer []byte
}

// journaled is an attempt that was not settled.
type journaled struct {
	ref   *hwpv1.AttemptRef
	ended *hwpv1.AttemptReport // its last report; nil while it runs
}

// Kinds of entries. An entry is: kind (1), length of the payload (varint), payload.
const (
	entryBoot    byte = 'B' // the payload names the boot of the machine that the file was begun in
	entryTaken   byte = 'A' // an AttemptRef
	entryEnded   byte = 'E' // an AttemptReport with the end
	entrySettled byte = 'D' // the epoch of an attempt (8)
)

const (
	// journalLimit is the size at which the file is written anew with what counts.
	journalLimit = 16 << 20
	// journalRest is how large the file may stay when nothing in it counts.
	journalRest = 64 << 10
	// maxBlock bounds what a damaged length can make us read.
	maxBlock = 1 << 30
	// blockHeader is: length of the entries (4), their checksum (4).
	blockHeader = 8
)

// past is what a former life of the agent has left to do.
type past struct {
	attempts  []journaled
	forgetful bool // the machine has ended in between, and with it what it had not written to the disk
}

// openJournal reads the journal and opens it for writing. boot names the present boot of the machine, empty when unknown.
func openJournal(path, boot string) (*journal, past, error) {
	_, statErr := os.Stat(path)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, past{}, fmt.Errorf("opening the agent's journal: %w", err)
	}
	j := &journal{file: file}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, past{}, errors.Join(fmt.Errorf("reading the agent's journal: %w", err), file.Close())
	}
	var r replay
	for rest := data; ; {
		entries, n := decodeBlock(rest)
		if n == 0 {
			break
		}
		rest = rest[n:]
		if err := readEntries(entries, r.entry); err != nil {
			err = fmt.Errorf("the agent's journal has an entry that cannot be read; move %s away to begin anew: %w", path, err)
			return nil, past{}, errors.Join(err, file.Close())
		}
	}
	// A file has at least the boot in it. One that is there and has none was cut back just before the machine ended.
	p := past{attempts: r.attempts(), forgetful: statErr == nil && (boot == "" || r.boot != boot)}
	j.boot = boot
	j.live = func() []journaled { return p.attempts }
	return j, p, j.rewrite()
}

// replay gathers what the entries of a journal come to.
type replay struct {
	boot  string
	order []uint64 // epochs, as they were taken
	live  map[uint64]journaled
}

func (r *replay) entry(kind byte, payload []byte) error {
	if r.live == nil {
		r.live = make(map[uint64]journaled)
	}
	switch kind {
	case entryBoot:
		r.boot = string(payload)
	case entryTaken:
		ref := new(hwpv1.AttemptRef)
		if err := proto.Unmarshal(payload, ref); err != nil {
			return err
		}
		if _, ok := r.live[ref.GetEpoch()]; !ok {
			r.order = append(r.order, ref.GetEpoch())
			r.live[ref.GetEpoch()] = journaled{ref: ref}
		}
	case entryEnded:
		report := new(hwpv1.AttemptReport)
		if err := proto.Unmarshal(payload, report); err != nil {
			return err
		}
		if a, ok := r.live[report.GetAttempt().GetEpoch()]; ok {
			a.ended = report
			r.live[report.GetAttempt().GetEpoch()] = a
		}
	case entrySettled:
		if len(payload) != 8 {
			return fmt.Errorf("an epoch has %d bytes", len(payload))
		}
		delete(r.live, binary.BigEndian.Uint64(payload))
	}
	return nil
}

func (r *replay) attempts() []journaled {
	var out []journaled
	for _, epoch := range r.order {
		if a, ok := r.live[epoch]; ok {
			out = append(out, a)
			delete(r.live, epoch) // it may have been taken again
		}
	}
	return out
}

// decodeBlock returns the entries of the first block and its size; 0 when there is no whole one.
func decodeBlock(data []byte) (entries []byte, n int) {
	if len(data) < blockHeader {
		return nil, 0
	}
	length := int(binary.BigEndian.Uint32(data))
	if length == 0 || length > maxBlock || len(data) < blockHeader+length {
		return nil, 0
	}
	entries = data[blockHeader : blockHeader+length]
	if crc32.ChecksumIEEE(entries) != binary.BigEndian.Uint32(data[4:]) {
		return nil, 0
	}
	return entries, blockHeader + length
}

func readEntries(data []byte, visit func(kind byte, payload []byte) error) error {
	for len(data) > 0 {
		length, n := binary.Uvarint(data[1:])
		if n <= 0 || length > uint64(len(data)-1-n) {
			return errors.New("an entry is longer than its block")
		}
		payload := data[1+n : 1+n+int(length)]
		if err := visit(data[0], payload); err != nil {
			return err
		}
		data = data[1+n+int(length):]
	}
	return nil
}

func appendEntry(b []byte, kind byte, payload []byte) []byte {
	b = binary.AppendUvarint(append(b, kind), uint64(len(payload)))
	return append(b, payload...)
}

// take records attempts that were taken. They are known to the next life of the agent when it returns.
func (j *journal) take(assigned []*hwpv1.Assign) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, a := range assigned {
		if err := j.add(entryTaken, a.GetAttempt()); err != nil {
			return err
		}
	}
	return j.flush()
}

// end records the last reports of attempts.
func (j *journal) end(reports []*hwpv1.AttemptReport) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range reports {
		if err := j.add(entryEnded, r); err != nil {
			return err
		}
	}
	return j.flush()
}

// settle records that the server has everything of attempts, which no longer count. When the file is large, or nothing is
// left, it begins anew.
func (j *journal) settle(refs []*hwpv1.AttemptRef, left int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.size > journalLimit || left == 0 && j.size > journalRest {
		return j.rewrite()
	}
	for _, ref := range refs {
		j.begin()
		j.buffer = append(j.buffer, entrySettled, 8)
		j.buffer = binary.BigEndian.AppendUint64(j.buffer, ref.GetEpoch())
	}
	return j.flush()
}

// begin makes room for the header of a block.
func (j *journal) begin() {
	if len(j.buffer) == 0 {
		j.buffer = append(j.buffer, make([]byte, blockHeader)...)
	}
}

// add appends an entry to the block that flush writes.
func (j *journal) add(kind byte, m entryMessage) error {
	j.begin()
	size := m.SizeVT()
	j.buffer = slices.Grow(binary.AppendUvarint(append(j.buffer, kind), uint64(size)), size)
	start := len(j.buffer)
	j.buffer = j.buffer[:start+size]
	_, err := m.MarshalToSizedBufferVT(j.buffer[start:])
	return err
}

// entryMessage is a message that encodes itself into memory that it is given.
type entryMessage interface {
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
}

// seal completes the block in the buffer.
func (j *journal) seal() []byte {
	binary.BigEndian.PutUint32(j.buffer, uint32(len(j.buffer)-blockHeader))
	binary.BigEndian.PutUint32(j.buffer[4:], crc32.ChecksumIEEE(j.buffer[blockHeader:]))
	return j.buffer
}

// flush writes the block.
func (j *journal) flush() error {
	if len(j.buffer) == 0 {
		return nil
	}
	n, err := j.file.WriteAt(j.seal(), j.size)
	j.buffer = j.buffer[:0]
	if err != nil {
		return fmt.Errorf("writing the agent's journal: %w", err) // the next block overwrites what there is of this one
	}
	j.size += int64(n)
	return nil
}

// rewrite begins the file anew with what counts. A crash in between leaves the old file or the new one.
func (j *journal) rewrite() error {
	j.buffer = appendEntry(append(j.buffer[:0], make([]byte, blockHeader)...), entryBoot, []byte(j.boot))
	live := j.live()
	for _, a := range live {
		if err := j.add(entryTaken, a.ref); err != nil {
			return err
		}
		if a.ended == nil {
			continue
		}
		if err := j.add(entryEnded, a.ended); err != nil {
			return err
		}
	}
	data := j.seal()
	defer func() { j.buffer = j.buffer[:0] }()
	if len(live) == 0 && j.size >= int64(len(data)) {
		// Nothing can be lost, so the file is cut back in place; what lies behind its first block does not count once that is
		// written, because it has gone before.
		if err := j.file.Truncate(0); err != nil {
			return fmt.Errorf("cutting the agent's journal back: %w", err)
		}
		j.size = 0
		n, err := j.file.WriteAt(data, 0)
		j.size = int64(n)
		return err
	}
	path := j.file.Name()
	if err := replaceFile(path, data); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening the agent's journal again: %w", err)
	}
	old := j.file
	j.file, j.size = file, int64(len(data))
	return old.Close()
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Close()
}

// machineBoot names the present boot of the machine: the kernel's page cache, which holds what was written and not synced,
// lives for as long. Empty when it is not known.
func machineBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
