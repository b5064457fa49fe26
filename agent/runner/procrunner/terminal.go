//go:build linux

package procrunner

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// multiplexer is the device that makes a pseudo-terminal for each who opens it.
const multiplexer = "/dev/ptmx"

// openTerminal makes a pseudo-terminal for a step. What the step writes is read from the controller, the other end of it.
func openTerminal(device string, size runner.Terminal, to io.Writer) (*output, error) {
	controller, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, explainTerminal(err)
	}
	o := &output{streams: []*stream{{from: pollable(controller, "terminal"), to: to}}, ended: make(chan struct{})}
	terminal, err := prepareTerminal(controller, size)
	if err != nil {
		o.abandon()
		return nil, explainTerminal(err)
	}
	o.opened = []int{terminal}
	o.step = [3]uintptr{uintptr(terminal), uintptr(terminal), uintptr(terminal)}
	return o, nil
}

// prepareTerminal opens the step's end of a terminal of the size. It has the modes of a new terminal but for the echo: what is
// typed here is no output of the step.
func prepareTerminal(controller int, size runner.Terminal) (int, error) {
	modes, err := unix.IoctlGetTermios(controller, unix.TCGETS) // of both ends
	if err != nil {
		return -1, err
	}
	modes.Lflag &^= unix.ECHO
	if err := errors.Join(
		unix.IoctlSetTermios(controller, unix.TCSETS, modes),
		unix.IoctlSetWinsize(controller, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(size.Columns), Row: uint16(size.Rows)}),
		unix.IoctlSetPointerInt(controller, unix.TIOCSPTLCK, 0),
	); err != nil {
		return -1, err
	}
	// By its name it might be found in another place than where it was made, or not at all: containers have folders of their own.
	terminal, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(controller), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY)
	if errno != 0 {
		return -1, errno
	}
	return int(terminal), nil
}

func explainTerminal(err error) error {
	advice := "see that " + multiplexer + " is there and devpts is mounted on /dev/pts on the worker, or run the step without a terminal"
	if errors.Is(err, unix.ENOSPC) {
		advice = "all that the worker may have are in use: raise /proc/sys/kernel/pty/max there, or run fewer steps with a terminal at once"
	}
	return failed("opening a terminal", fmt.Errorf("%w; %s", err, advice))
}

const (
	// endOfInput is what a user types who has nothing to say. There are several, because programs read one after the other.
	endOfInput = "\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04"
	// inputDelay is how long a program may have to wait for another one. It also bounds what a program does that takes each for a key.
	inputDelay = time.Second
)

// endInput lets nobody wait for input that never comes: whenever nothing is left to read, it types the ends of the input again,
// as each is read once only, and programs that ask for a password throw away what was typed before. Where a program takes keys one by
// one, the end of the input is a key like others.
//
// Meanwhile it holds the step's end of the terminal open, so that a step which closes all of its own and opens /dev/tty later
// still has a terminal. The output ends when the last end is closed.
func (o *output) endInput() {
	defer o.closeOpened()
	again := time.NewTicker(inputDelay)
	defer again.Stop()
	for {
		waiting := []unix.PollFd{{Fd: int32(o.opened[0]), Events: unix.POLLIN}}
		if n, _ := unix.Poll(waiting, 0); n == 0 {
			_, _ = o.streams[0].from.WriteString(endOfInput) // fails when somebody has hung up
		}
		select {
		case <-again.C:
		case <-o.ended:
			return
		}
	}
}
