package agent

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peer returns the process at the other end, and its user.
func peer(conn *net.UnixConn) (pid int, uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var credentials *unix.Ucred
	var problem error
	err = raw.Control(func(fd uintptr) {
		credentials, problem = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = problem
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the kernel does not say which process calls: %w", err)
	}
	return int(credentials.Pid), credentials.Uid, nil
}
