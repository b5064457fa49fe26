package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/durable"
)

// checkpointFile is the path of a file to which lines of checkpoints are only ever appended, so that it may lie where nothing else is
// allowed. Empty: there is no such file.
type checkpointFile string

// fileTail is how much of the end of the file is searched for a checkpoint.
const fileTail = 64 << 10

// append adds a line durably. What a crash or a full disk has left of another one is ended first.
func (f checkpointFile) append(line []byte) (err error) {
	if f == "" {
		return nil
	}
	_, missing := os.Stat(string(f))
	file, err := os.OpenFile(string(f), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the file of checkpoints: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := regular(file)
	if err != nil {
		return err
	}
	whole := append(bytes.Clone(line), '\n')
	if last := []byte{'\n'}; size > 0 {
		if _, err := file.ReadAt(last, size-1); err != nil {
			return fmt.Errorf("reading the end of the file of checkpoints: %w", err)
		}
		if last[0] != '\n' {
			whole = append([]byte{'\n'}, whole...)
		}
	}
	if _, err := file.Write(whole); err != nil {
		return fmt.Errorf("writing the file of checkpoints: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("syncing the file of checkpoints: %w", err)
	}
	if errors.Is(missing, fs.ErrNotExist) {
		return durable.SyncFolder(filepath.Dir(string(f)))
	}
	return nil
}

// newest returns the last checkpoint of the file that the key has signed; none when there is no file, or it is empty. Lines that
// cannot be read are passed over, as long as one can.
func (f checkpointFile) newest(key ed25519.PublicKey) (c chain.Checkpoint, found bool, err error) {
	if f == "" {
		return c, false, nil
	}
	file, err := os.Open(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, fmt.Errorf("opening the file of checkpoints: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	size, err := regular(file)
	if err != nil {
		return c, false, err
	}
	tail, err := io.ReadAll(io.NewSectionReader(file, max(size-fileTail, 0), fileTail))
	if err != nil {
		return c, false, fmt.Errorf("reading the file of checkpoints: %w", err)
	}
	for rest := tail; len(rest) > 0; {
		at := bytes.LastIndexByte(rest, '\n')
		if c, err := chain.ParseCheckpoint(rest[at+1:], key); err == nil {
			return c, true, nil
		}
		rest = rest[:max(at, 0)]
	}
	if len(tail) > 0 {
		return c, false, fmt.Errorf("at the end of %s is no checkpoint that this server has signed", f)
	}
	return c, false, nil
}

// regular returns the size of a file, and refuses what only looks like one: a pipe could block for ever.
func regular(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a file to which checkpoints could be appended", file.Name())
	}
	return info.Size(), nil
}
