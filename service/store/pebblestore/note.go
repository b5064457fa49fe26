package pebblestore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// noteName is the file of the note.
const noteName = "SYNCED"

// note says what is durable of the write-ahead log and of the list of tables (MANIFEST): so many bytes of a file, and their
// checksum. Pebble takes what does not fit at the end of either for a write that a crash has torn, and goes on with what is
// before; the note tells such a write, which nobody was told about, from a file that has been damaged since.
//
// The file has three pages of 4 KiB. Two hold a list of the files each, the third two marks, in sectors of their own:
//
//	list   crc32 be32 | "HSL" version | bytes be32 | number be64 | closed be64 | files: kind, number be64, length be64, crc32 be32
//	mark   crc32 be32 | "HSM" version | number be64 | list be64 | log be64, length be64, crc32 be32
//
// Lists take turns, and so do marks; of two the one with the larger number counts, unless it is torn. A list is synced before it
// is needed: before a log that it names no more is removed or used again, and before a new MANIFEST becomes the current one. A
// mark speaks of the log that is being written. It is written after each sync of the log and before anybody hears of the commit,
// and it is never synced by itself: it outlives the process as it is, and after a loss of power it may be an older one, which is
// still true.
type note struct {
	file vfs.File
	lock io.Closer // of the folder
	home string    // the folder

	changing sync.Mutex // held while a list is written and synced; taken before mu
	mu       sync.Mutex
	err      error    // the first failure; nothing is written after it
	files    []listed // all but the log that is being written
	log      listed   // the log that is being written, if something of it is durable
	closed   uint64   // this log and those before it are not written any more
	list     uint64   // the number of the last list
	listed   uint64   // the number of the last list that is durable
	mark     uint64   // the number of the last mark
	page     [pageBytes]byte
}

// extent is the beginning of a file.
type extent struct {
	length int64
	sum    uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// with returns the extent that has p behind it.
func (e extent) with(p []byte) extent {
	return extent{e.length + int64(len(p)), crc32.Update(e.sum, castagnoli, p)}
}

// listed is what is durable of a file.
type listed struct {
	kind   byte
	number uint64
	extent
}

// Kinds of files.
const (
	kindLog      = 'L'
	kindManifest = 'M'
)

// numbered returns the kind and the number that the name of a file says, or kind 0.
func numbered(name string) (kind byte, number uint64) {
	digits, ok := strings.CutSuffix(name, ".log")
	kind = kindLog
	if !ok {
		digits, ok = strings.CutPrefix(name, "MANIFEST-")
		kind = kindManifest
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil {
		return 0, 0
	}
	return kind, number
}

func (l listed) name() string {
	if l.kind == kindLog {
		return fmt.Sprintf("%06d.log", l.number)
	}
	return fmt.Sprintf("MANIFEST-%06d", l.number)
}

// The layout of the file.
const (
	pageBytes   = 4096
	noteBytes   = 3 * pageBytes
	sectorBytes = 512
	marksAt     = 2 * pageBytes
	listHead    = 28
	fileBytes   = 21
	markBytes   = 44
	maxFiles    = (pageBytes - listHead) / fileBytes
	noteVersion = 1
)

// logSynced notes that a log has become durable up to here.
func (n *note) logSynced(number uint64, e extent) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = listed{kindLog, number, e}
	return n.writeMark()
}

// logClosed notes that a log is not written any more.
func (n *note) logClosed(number uint64) error {
	return n.change(func() { n.closeLog(number) })
}

func (n *note) closeLog(number uint64) {
	if n.log.number == number && n.log.length > 0 {
		n.files = append(n.files, n.log)
	}
	n.log = listed{}
	n.closed = max(n.closed, number)
}

// manifestSynced notes that a MANIFEST has become durable up to here. The newest one is not current yet when this is called for
// the first time, so the one before it stays as well.
func (n *note) manifestSynced(number uint64, e extent) error {
	return n.change(func() {
		var last uint64
		for i := range n.files {
			if n.files[i].kind == kindManifest {
				last = max(last, n.files[i].number)
			}
		}
		n.files = slices.DeleteFunc(n.files, func(l listed) bool {
			return l.kind == kindManifest && (l.number == number || l.number != last && number > last)
		})
		n.files = append(n.files, listed{kindManifest, number, e})
	})
}

// forget must be called before a log is removed or becomes another one.
func (n *note) forget(number uint64) error {
	isIt := func(l listed) bool { return l.kind == kindLog && l.number == number }
	n.mu.Lock()
	known := slices.ContainsFunc(n.files, isIt)
	n.mu.Unlock()
	if !known {
		return nil
	}
	return n.change(func() { n.files = slices.DeleteFunc(n.files, isIt) })
}

// change changes what is listed and makes it durable. Marks are written meanwhile, so no commit waits for it.
func (n *note) change(do func()) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	if err := n.writeList(do); err != nil {
		return err
	}
	err := n.file.SyncData()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		return n.failed(err)
	}
	n.listed = n.list
	return n.writeMark()
}

func (n *note) failed(err error) error {
	if n.err == nil {
		n.err = fmt.Errorf("writing %s: %w", noteName, err)
	}
	return n.err
}

func (n *note) writeList(do func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return n.err
	}
	do()
	n.list++
	if _, err := n.file.WriteAt(n.appendList(n.page[:0]), n.listAt()); err != nil {
		return n.failed(err)
	}
	return nil
}

func (n *note) writeMark() error {
	if n.err != nil {
		return n.err
	}
	n.mark++
	if _, err := n.file.WriteAt(n.appendMark(n.page[:0]), n.markAt()); err != nil {
		return n.failed(err)
	}
	return nil
}

func (n *note) listAt() int64 { return int64(n.list % 2 * pageBytes) }
func (n *note) markAt() int64 { return int64(marksAt + n.mark%2*sectorBytes) }

// appendList appends the list. When there are more files than it can hold, the oldest logs are left out: nothing is claimed of
// them then.
func (n *note) appendList(b []byte) []byte {
	logs := n.files
	if n.log.length > 0 {
		logs = append(logs[:len(logs):len(logs)], n.log)
	}
	if len(logs) > maxFiles {
		logs = slices.SortedFunc(slices.Values(logs), func(a, b listed) int {
			if a.kind != b.kind {
				return int(b.kind) - int(a.kind)
			}
			return int(int64(b.number - a.number))
		})[:maxFiles]
	}
	b = append(b, 0, 0, 0, 0, 'H', 'S', 'L', noteVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(listHead+fileBytes*len(logs)))
	b = binary.BigEndian.AppendUint64(b, n.list)
	b = binary.BigEndian.AppendUint64(b, n.closed)
	for _, l := range logs {
		b = l.append(append(b, l.kind))
	}
	return sealed(b)
}

func (n *note) appendMark(b []byte) []byte {
	b = append(b, 0, 0, 0, 0, 'H', 'S', 'M', noteVersion)
	b = binary.BigEndian.AppendUint64(b, n.mark)
	b = binary.BigEndian.AppendUint64(b, n.listed)
	return sealed(n.log.append(b))
}

func (l listed) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, l.number)
	b = binary.BigEndian.AppendUint64(b, uint64(l.length))
	return binary.BigEndian.AppendUint32(b, l.sum)
}

// sealed puts the checksum of what follows into the first four bytes.
func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// synced returns what is durable of the files.
func (n *note) synced() []listed {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append(slices.Clone(n.files), n.log)
}

// close ends the note, and with it the use of the folder.
func (n *note) close() error {
	if n == nil {
		return nil
	}
	err := n.file.Close()
	if errLock := n.lock.Close(); err == nil {
		err = errLock
	}
	return err
}
