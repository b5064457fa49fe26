//go:build unix && !aix && !solaris

package hodei

import (
	"fmt"
	"os"
	"syscall"
)

// tryLock takes the lock of a file, which it makes, without waiting. The lock ends with the process at the latest.
func tryLock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the login: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("locking the login: %w", err)
	}
	return func() { _ = file.Close() }, nil
}
