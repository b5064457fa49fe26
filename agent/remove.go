package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// removeTree removes a folder of a job with all that is in it. A job may nest folders as deep as it likes, so few files are open at a time
// however deep it is: what is not empty in a folder is moved up to the top first. No link leads out of the parent.
func removeTree(parent *os.Root, name string) error {
	err := parent.Remove(name)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if info, err := parent.Lstat(name); err != nil || !info.IsDir() {
		return errors.Join(err, errors.New(filepath.Join(parent.Name(), name)+" is no folder"))
	}
	_ = parent.Chmod(name, 0o700)
	top, err := parent.OpenRoot(name)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // nothing was written
	t := tree{root: top}
	if err := t.clear("."); err != nil {
		return err
	}
	return parent.Remove(name)
}

// tree is a folder that is being removed.
type tree struct {
	root   *os.Root
	lifted int // how many folders were moved to the top
}

// namesAtOnce bounds how many names of a folder are read at a time.
const namesAtOnce = 1024

// clear empties a folder at the top, or "." the top itself, as far as it goes.
func (t *tree) clear(dir string) error {
	for {
		folder, err := t.root.Open(dir)
		if err != nil {
			return err
		}
		names, _ := folder.Readdirnames(namesAtOnce) // none at the end
		_ = folder.Close()
		var problem error
		left := 0
		for _, name := range names {
			if err := t.remove(dir, name); err != nil {
				problem, left = err, left+1
			}
		}
		if left == len(names) {
			return problem
		}
	}
}

// remove removes what is in a folder from there.
func (t *tree) remove(dir, name string) error {
	path := filepath.Join(dir, name)
	err := t.root.Remove(path)
	if err == nil {
		return nil
	}
	if info, problem := t.root.Lstat(path); problem != nil || !info.IsDir() {
		return err
	}
	_ = t.root.Chmod(path, 0o700) // whatever the job made of it
	if dir != "." {
		return t.lift(path)
	}
	if err := t.clear(path); err != nil {
		return err
	}
	return t.root.Remove(path)
}

// lift moves a folder to the top, under a name that nothing has there.
func (t *tree) lift(path string) error {
	for {
		t.lifted++
		name := strconv.Itoa(t.lifted)
		err := t.root.Rename(path, name)
		if err == nil {
			return nil
		}
		if _, taken := t.root.Lstat(name); taken != nil {
			return err
		}
	}
}
