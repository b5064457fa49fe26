package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// damage is an error that says that a store is not what it was when it was last synced, or that nobody can tell.
type damage struct {
	dir, note, what string
	inDoubt         bool
}

// Error implements error.
func (e *damage) Error() string {
	if e.inDoubt {
		return fmt.Sprintf("nobody can tell whether the store in %s is whole: %s. If nothing else has happened to the folder, write the word %s "+
			"into %s and start again; otherwise restore a backup", e.dir, e.what, acceptWord, e.note)
	}
	return fmt.Sprintf("the store in %s is damaged: %s; restore a backup. To go on with what is left, without what was acknowledged "+
		"and is lost, write the word %s into %s and start again", e.dir, e.what, acceptWord, e.note)
}

// acceptWord instead of a note is the operator's word that what is in the folder shall be taken as it is.
const acceptWord = "accept"

// openNote reads the note in a folder, which is locked, and checks what it says. Where there is none yet it is begun.
func (s *Store) openNote(disk vfs.FS, dir string, lock *pebble.Lock) (*note, error) {
	name := disk.PathJoin(dir, noteName)
	damaged := func(what string) error { return &damage{dir: dir, note: name, what: what} }
	found, err := pebble.Peek(dir, disk)
	if err != nil {
		return nil, err
	}
	raw, err := readFile(disk, name)
	switch {
	case err == nil && strings.TrimSpace(string(raw)) == acceptWord:
		s.logger.Warn("the store is taken as it is, by the word in the file; what was lost stays lost", "file", name)
		err = beginNote(disk, dir)
	case errors.Is(err, fs.ErrNotExist):
		if found.Exists {
			return nil, damaged(noteName + " is gone, which says what was synced")
		}
		err = beginNote(disk, dir)
	}
	if err == nil {
		raw, err = readFile(disk, name)
	}
	if err != nil {
		return nil, err
	}
	n := &note{home: dir, lock: lock}
	switch err := n.decode(raw); {
	case errors.Is(err, errNewerNote):
		return nil, err
	case err != nil:
		return nil, damaged(err.Error())
	}
	if what, err := n.check(disk, dir, found); what != "" || err != nil {
		if err == nil {
			err = damaged(what)
		}
		return nil, err
	}
	if n.file, err = disk.OpenReadWrite(name, vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	// What a mark said is listed from now on: marks will speak of another log.
	if err := n.change(func() { n.closeLog(n.log.number) }); err != nil {
		return nil, errors.Join(err, n.file.Close())
	}
	return n, nil
}

// beginNote writes a note that takes what is in a folder as it is, after making that durable. The folder has it whole or not
// at all.
func beginNote(disk vfs.FS, dir string) error {
	found, err := pebble.Peek(dir, disk)
	if err != nil {
		return err
	}
	names, err := disk.List(dir)
	if err != nil {
		return err
	}
	n := &note{list: 1, listed: 1}
	for _, name := range names {
		path := disk.PathJoin(dir, name)
		kind, number := numbered(name)
		if kind == kindLog || kind == kindManifest && found.Exists && path == found.ManifestFilename {
			e, err := syncedExtent(disk, path)
			if err != nil {
				return err
			}
			n.files = append(n.files, listed{kind, number, e})
		}
		if kind == kindLog {
			n.closed = max(n.closed, number)
		}
	}
	raw := make([]byte, noteBytes)
	copy(raw[n.listAt():], n.appendList(nil))
	copy(raw[n.markAt():], n.appendMark(nil))
	final := disk.PathJoin(dir, noteName)
	next := final + ".new"
	if err := writeFile(disk, next, raw); err != nil {
		return err
	}
	if err := disk.Rename(next, final); err != nil {
		return err
	}
	return syncFolder(disk, dir)
}

// syncFolder makes the names in a folder durable.
func syncFolder(disk vfs.FS, dir string) error {
	folder, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

var errNewerNote = errors.New(noteName + " is of a newer version")

// decode reads a note, or says what is wrong with it.
func (n *note) decode(raw []byte) error {
	if len(raw) != noteBytes {
		return fmt.Errorf("%s has %d bytes instead of %d", noteName, len(raw), noteBytes)
	}
	for at := 0; at < marksAt; at += pageBytes {
		page := raw[at : at+pageBytes]
		size := int(binary.BigEndian.Uint32(page[8:]))
		if size >= listHead && size <= pageBytes && isSealed(page[:size], 'L') {
			if page[7] > noteVersion {
				return errNewerNote
			}
			if number := binary.BigEndian.Uint64(page[12:]); number > n.list {
				n.list, n.listed, n.closed = number, number, binary.BigEndian.Uint64(page[20:])
				n.files = n.files[:0]
				for rest := page[listHead:size]; len(rest) >= fileBytes; rest = rest[fileBytes:] {
					n.files = append(n.files, decodeListed(rest[0], rest[1:]))
				}
			}
		}
	}
	var durable uint64 // a list that had become so
	for at := marksAt; at < marksAt+2*sectorBytes; at += sectorBytes {
		if b := raw[at : at+markBytes]; isSealed(b, 'M') {
			durable = max(durable, binary.BigEndian.Uint64(b[16:]))
			if number := binary.BigEndian.Uint64(b[8:]); number > n.mark {
				n.mark, n.log = number, decodeListed(kindLog, b[24:])
			}
		}
	}
	if n.list == 0 || n.list < durable {
		return errors.New(noteName + ", which says what was synced, cannot be read")
	}
	if n.log.number <= n.closed { // it was listed since
		n.log = listed{}
	}
	return nil
}

// isSealed says whether a list or a mark is whole.
func isSealed(b []byte, kind byte) bool {
	return string(b[4:7]) == string([]byte{'H', 'S', kind}) && binary.BigEndian.Uint32(b) == crc32.Checksum(b[4:], castagnoli)
}

func decodeListed(kind byte, b []byte) listed {
	return listed{kind, binary.BigEndian.Uint64(b), extent{int64(binary.BigEndian.Uint64(b[8:])), binary.BigEndian.Uint32(b[16:])}}
}

// check holds the files of a folder against the note and says what is wrong. Of lists of tables only the current one matters.
func (n *note) check(disk vfs.FS, dir string, found *pebble.DBDesc) (wrong string, err error) {
	current := listed{kind: kindManifest}
	switch {
	case found.Exists:
		_, current.number = numbered(disk.PathBase(found.ManifestFilename))
	case n.closed > 0 || n.log.number > 0:
		return "the file marker.manifest.* is gone, which says which list of tables is the current one", nil
	}
	isListed := !found.Exists
	kept := n.files[:0]
	for _, l := range n.files {
		if l.kind == kindManifest && (!found.Exists || l.number != current.number) {
			continue
		}
		isListed = isListed || l.kind == kindManifest
		kept = append(kept, l)
	}
	n.files = kept
	if !isListed {
		if _, err := disk.Stat(found.ManifestFilename); errors.Is(err, fs.ErrNotExist) {
			return current.name() + " is gone", nil
		}
		what := fmt.Sprintf("%s is not in %s, so a program that does not keep it has opened the store since, perhaps an older hodei",
			current.name(), noteName)
		return "", &damage{dir: dir, note: disk.PathJoin(dir, noteName), what: what, inDoubt: true}
	}
	for _, l := range append(kept[:len(kept):len(kept)], n.log) {
		if wrong, err := l.check(disk, dir); wrong != "" || err != nil {
			return wrong, err
		}
	}
	return "", nil
}

// check compares a file with what was synced of it.
func (l listed) check(disk vfs.FS, dir string) (wrong string, err error) {
	if l.length == 0 {
		return "", nil
	}
	f, err := disk.Open(disk.PathJoin(dir, l.name()), vfs.SequentialReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%s is gone, of which %d bytes were synced", l.name(), l.length), nil
	}
	if err != nil {
		return "", err
	}
	sum := crc32.New(castagnoli)
	length, err := io.CopyN(sum, f, l.length)
	switch errClose := f.Close(); {
	case errors.Is(err, io.EOF):
		return fmt.Sprintf("%s is cut off at %d of the %d bytes that were synced", l.name(), length, l.length), errClose
	case err != nil:
		return "", fmt.Errorf("reading %s: %w", l.name(), errors.Join(err, errClose))
	case sum.Sum32() != l.sum:
		return fmt.Sprintf("the content of %s differs from the %d bytes that were synced", l.name(), l.length), errClose
	default:
		return "", errClose
	}
}

// syncedExtent makes a file durable and returns all of it.
func syncedExtent(disk vfs.FS, name string) (e extent, err error) {
	f, err := disk.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return e, err
	}
	sum := crc32.New(castagnoli)
	e.length, err = io.Copy(sum, f)
	e.sum = sum.Sum32()
	return e, err
}

func readFile(disk vfs.FS, name string) ([]byte, error) {
	f, err := disk.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, 2*noteBytes))
	return data, errors.Join(err, f.Close())
}

func writeFile(disk vfs.FS, name string, data []byte) error {
	f, err := disk.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
