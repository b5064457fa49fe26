package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"google.golang.org/protobuf/proto"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// journal is what the agent must not forget: the attempts that it has taken, and reports that were not acknowledged.
//
// It is a file of entries, each with its length and checksum, that is only appended to. A torn entry at the end, from a
// crash, is cut off. When everything in it is settled the file begins anew.
type journal struct {
	mu   sync.Mutex
	file *os.File
	size int64
	live map[string][]byte // entries that count, by what they are about
	keys []string          // of live, in order; may name entries that no longer count
}

// Kinds of entries. Each is about something that has a key.
const (
	entryAttempt byte = 'A' // the attempt was taken; the payload is whether it has ended (1), and an AttemptRef
	entryReport  byte = 'R' // the payload is an AgentMessage with its request_id
	entryDone    byte = 'D' // the payload is the key of an entry that no longer counts
)

// journalLimit is the size at which the file is written anew with what counts.
const journalLimit = 4 << 20

// maxEntry bounds what a damaged length can make us read.
const maxEntry = 1 << 20

// past is what a former life of the agent has left to do.
type past struct {
	attempts []pastAttempt
	reports  []*hwpv1.AgentMessage
}

type pastAttempt struct {
	ref      *hwpv1.AttemptRef
	finished bool // its end was reported
}

// openJournal reads the journal and opens it for writing.
func openJournal(path string) (*journal, past, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, past{}, fmt.Errorf("opening the agent's journal: %w", err)
	}
	j := &journal{file: file, live: make(map[string][]byte)}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, past{}, errors.Join(fmt.Errorf("reading the agent's journal: %w", err), file.Close())
	}
	j.size = int64(j.replay(data))
	if err := errors.Join(file.Truncate(j.size), seekEnd(file)); err != nil {
		return nil, past{}, errors.Join(fmt.Errorf("repairing the agent's journal: %w", err), file.Close())
	}
	p, err := j.past()
	return j, p, err
}

func seekEnd(file *os.File) error {
	_, err := file.Seek(0, io.SeekEnd)
	return err
}

// replay applies all whole entries and returns how many bytes they have.
func (j *journal) replay(data []byte) int {
	read := 0
	for {
		kind, key, payload, n := decodeEntry(data[read:])
		if n == 0 {
			return read
		}
		j.apply(kind, key, payload)
		read += n
	}
}

func (j *journal) apply(kind byte, key string, payload []byte) {
	if kind == entryDone {
		delete(j.live, string(payload))
		return
	}
	if _, ok := j.live[key]; !ok {
		j.keys = append(j.keys, key)
	}
	j.live[key] = payload
}

// Entries are laid out as: length of the rest (4), checksum of what follows (4), kind (1), length of the key (2), key, payload.
func encodeEntry(kind byte, key string, payload []byte) []byte {
	body := make([]byte, 0, 8+3+len(key)+len(payload))
	body = append(body, 0, 0, 0, 0, 0, 0, 0, 0, kind)
	body = binary.BigEndian.AppendUint16(body, uint16(len(key)))
	body = append(append(body, key...), payload...)
	binary.BigEndian.PutUint32(body, uint32(len(body)-4))
	binary.BigEndian.PutUint32(body[4:], crc32.ChecksumIEEE(body[8:]))
	return body
}

// decodeEntry reads the first entry; n is 0 when there is no whole one.
func decodeEntry(data []byte) (kind byte, key string, payload []byte, n int) {
	if len(data) < 11 {
		return 0, "", nil, 0
	}
	length := int(binary.BigEndian.Uint32(data))
	if length < 7 || length > maxEntry || len(data) < 4+length {
		return 0, "", nil, 0
	}
	body := data[8 : 4+length]
	keyLength := int(binary.BigEndian.Uint16(body[1:]))
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(data[4:]) || len(body) < 3+keyLength {
		return 0, "", nil, 0
	}
	return body[0], string(body[3 : 3+keyLength]), body[3+keyLength:], 4 + length
}

func (j *journal) past() (past, error) {
	var p past
	for _, key := range j.keys {
		payload, ok := j.live[key]
		if !ok {
			continue
		}
		if key[0] == entryAttempt {
			ref := new(hwpv1.AttemptRef)
			if len(payload) == 0 || proto.Unmarshal(payload[1:], ref) != nil {
				return p, errors.New("the agent's journal has an attempt that cannot be read; move the file away to begin anew")
			}
			p.attempts = append(p.attempts, pastAttempt{ref: ref, finished: payload[0] != 0})
			continue
		}
		report := new(hwpv1.AgentMessage)
		if err := proto.Unmarshal(payload, report); err != nil {
			return p, fmt.Errorf("the agent's journal has a report that cannot be read: %w", err)
		}
		p.reports = append(p.reports, report)
	}
	return p, nil
}

func attemptKey(ref *hwpv1.AttemptRef) string {
	return fmt.Sprintf("%c%s.%d", entryAttempt, ref.GetJobId(), ref.GetAttempt())
}

func reportKey(requestID string) string { return string(entryReport) + requestID }

// accept records that attempts were taken. When it returns, those that must not be started twice are on the disk, so that
// no crash makes the agent take them again; one sync serves all.
func (j *journal) accept(assigned []*hwpv1.Assign) error {
	sync := false
	for _, a := range assigned {
		if err := j.attempt(a.GetAttempt(), 0); err != nil {
			return err
		}
		sync = sync || !a.GetRetryable()
	}
	if !sync {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Sync()
}

// finish records that the end of an attempt was reported.
func (j *journal) finish(ref *hwpv1.AttemptRef) error { return j.attempt(ref, 1) }

func (j *journal) attempt(ref *hwpv1.AttemptRef, finished byte) error {
	payload, err := proto.MarshalOptions{}.MarshalAppend([]byte{finished}, ref)
	if err != nil {
		return err
	}
	return j.write(entryAttempt, attemptKey(ref), payload)
}

// report records a report that was not acknowledged.
func (j *journal) report(m *hwpv1.AgentMessage) error {
	payload, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return j.write(entryReport, reportKey(m.GetRequestId()), payload)
}

// done records that an entry no longer counts.
func (j *journal) done(key string) error { return j.write(entryDone, "", []byte(key)) }

func (j *journal) write(kind byte, key string, payload []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.apply(kind, key, payload)
	if len(j.live) == 0 || j.size > journalLimit {
		return j.rewrite()
	}
	n, err := j.file.Write(encodeEntry(kind, key, payload))
	j.size += int64(n)
	if err != nil {
		return fmt.Errorf("writing the agent's journal: %w", err)
	}
	return nil
}

// rewrite begins the file anew with the entries that count. A crash in between leaves the old file or the new one.
func (j *journal) rewrite() error {
	var data []byte
	keys := j.keys[:0]
	for _, key := range j.keys {
		if payload, ok := j.live[key]; ok {
			keys = append(keys, key)
			data = append(data, encodeEntry(key[0], key, payload)...)
		}
	}
	j.keys = keys
	if len(data) == 0 {
		j.size = 0
		return errors.Join(j.file.Truncate(0), seekEnd(j.file))
	}
	path := j.file.Name()
	if err := replaceFile(path, data); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600)
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
