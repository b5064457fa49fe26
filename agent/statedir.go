package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// passage is the mode of folders through which others than the agent come to what is theirs: all may go through, nobody may list them.
const passage = 0o711

// mode is that of the folders above what belongs to attempts.
func (u *users) mode() os.FileMode {
	if u == nil {
		return 0o700
	}
	return passage
}

// open makes the agent's state folder, through which attempts must come to their own when they run as others.
func (u *users) open(dir string) error {
	if err := os.MkdirAll(dir, u.mode()); err != nil || u == nil {
		return err
	}
	if err := os.Chmod(dir, passage); err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(dir)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	for ; err == nil && path != filepath.Dir(path); path = filepath.Dir(path) {
		var info os.FileInfo
		if info, err = os.Stat(path); err == nil && info.Mode()&0o001 == 0 {
			return fmt.Errorf("jobs that run as others could not come to their folders in %s, because %s may not be entered by all; "+
				"choose another folder with --state-dir, or allow it with `chmod o+x %[2]s`", dir, path)
		}
	}
	return err
}

// prepare gives the folder above those of attempts its mode, and sees that the machine knows the users.
func (u *users) prepare(root *os.Root) error {
	if u == nil {
		return nil
	}
	err := root.Chmod(".", passage)
	for _, user := range u.edges() {
		if err != nil {
			break
		}
		const probe = "probe"
		err = errors.Join(root.Mkdir(probe, 0o700), root.Chown(probe, int(user.UID), int(user.GID)), root.Remove(probe))
		if errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("this container has no user %d with the group %d; have it mapped into the container, or choose others with --run-as",
				user.UID, user.GID)
		}
	}
	return err
}
