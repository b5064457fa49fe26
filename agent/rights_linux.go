package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// claimsFile is where agents of one machine say which UIDs they use: the agent that has a range holds a lock on as many bytes of it.
const claimsFile = "/run/hodei-agent.uids"

// rights are the capabilities that it takes to run attempts as others, and to clean up after them.
var rights = []struct { //nolint:gochecknoglobals // a table
	number uint
	name   string
}{
	{unix.CAP_CHOWN, "CAP_CHOWN"},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"},
	{unix.CAP_FOWNER, "CAP_FOWNER"},
	{unix.CAP_KILL, "CAP_KILL"},
	{unix.CAP_SETGID, "CAP_SETGID"},
	{unix.CAP_SETUID, "CAP_SETUID"},
}

// claim makes sure that the agent can run attempts as others and that no other agent of the machine uses their UIDs, until it is
// released or the agent ends.
func (u *users) claim(file string) (release func(), err error) {
	if u == nil {
		return func() {}, nil
	}
	if err := errors.Join(checkRights(), checkDumps()); err != nil || !u.ranged() {
		return func() {}, err
	}
	claims, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("telling other agents which UIDs are taken: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(u.first), Len: int64(u.size())}
	if err := unix.FcntlFlock(claims.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		_ = claims.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, errors.New("another agent on this machine uses some of these UIDs; give each agent a range of its own")
		}
		return nil, fmt.Errorf("telling other agents which UIDs are taken: %w", err)
	}
	return func() { _ = claims.Close() }, nil
}

// checkRights says what the agent lacks. It must be root in any case: only then do the first system calls of a step's process, which
// enter its folder and start its program, have the user's rights already.
func checkRights() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can run jobs as other users; start the agent as root")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("looking at the agent's capabilities: %w", err)
	}
	var missing []string
	for _, r := range rights {
		if data[r.number/32].Effective&(1<<(r.number%32)) == 0 {
			missing = append(missing, r.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the agent is root without %s; give it that (--cap-add of containers, CapabilityBoundingSet of systemd)",
			strings.Join(missing, ", "))
	}
	return nil
}

// checkDumps refuses a setting for debugging: a new process shares the agent's memory for the moment in which it is the job's user
// already and not yet the job's program, and the kernel hides that memory from other processes of the user for as long as it
// would not dump it.
func checkDumps() error {
	const file = "/proc/sys/fs/suid_dumpable"
	if value, err := os.ReadFile(file); err == nil && string(bytes.TrimSpace(value)) == "1" {
		return fmt.Errorf("%s is 1, by which jobs could look into the agent's memory; set it to 0 or 2", file)
	}
	return nil
}

// hideMemory keeps jobs that run as the agent's own user from reading the agent's memory and environment, in which there may be what
// other jobs are told in confidence. It does not help against root.
func hideMemory() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
