package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// users knows who attempts run as. nil: as the agent.
type users struct {
	// one is the user of all attempts; nil: each that runs has another one of a range.
	one *account
	// free has those of the range that no attempt has, the longest unused first: what one has left outside of its folders gets old before
	// another one could find it.
	free        chan *account
	first, last uint32
}

// account is a user that attempts run as.
type account struct {
	runner.User
	name, home, shell string // without a home it is the attempt's folder
}

// maxUsers is more attempts than a machine runs at once.
const maxUsers = 4096

// Where the machine's users and groups are listed.
const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// newUsers reads who attempts are to run as: the name of a user, a UID, or a range of UIDs FIRST-LAST; empty: nil. The files are the
// machine's lists of users and of groups.
func newUsers(text, passwd, group string) (*users, error) {
	if text == "" {
		return nil, nil
	}
	u := &users{}
	var err error
	if strings.Contains(text, "-") && strings.Trim(text, "0123456789-") == "" {
		err = u.readRange(text, passwd, group)
	} else {
		u.one, err = lookUp(text, passwd, group)
	}
	if err != nil {
		return nil, fmt.Errorf("--run-as %s: %w", text, err)
	}
	return u, nil
}

// readRange reads FIRST-LAST.
func (u *users) readRange(text, passwd, group string) error {
	low, high, _ := strings.Cut(text, "-")
	first, err := strconv.ParseUint(low, 10, 32)
	last, errLast := strconv.ParseUint(high, 10, 32)
	switch {
	case err != nil || errLast != nil || last > math.MaxUint32-2: // the last two mean "none" and "unknown"
		return fmt.Errorf("a range of UIDs is two numbers up to %d with a '-' between them, for example 200000-200063", uint32(math.MaxUint32-2))
	case first == 0:
		return errors.New(isRoot)
	case last < first:
		return errors.New("the range is empty; give the smaller number first")
	case last-first >= maxUsers:
		return fmt.Errorf("the range has %d UIDs; give one for each job at a time, at most %d", last-first+1, maxUsers)
	}
	u.first, u.last = uint32(first), uint32(last)
	if err := u.checkForeign(passwd, group); err != nil {
		return err
	}
	u.free = make(chan *account, u.size())
	for id := first; id <= last; id++ {
		name := strconv.FormatUint(id, 10)
		u.free <- &account{User: runner.User{UID: uint32(id), GID: uint32(id)}, name: name, shell: "/bin/sh"}
	}
	return nil
}

const isRoot = "0 is root, who may do everything; choose a user who may not"

// checkForeign makes sure that nobody else has a UID or a GID of the range.
func (u *users) checkForeign(passwd, group string) error {
	for _, file := range []string{passwd, group} {
		entries, err := readAccounts(file)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if u.owns(e.id) {
				return fmt.Errorf("%d is already the number of %s in %s; choose a range that nobody uses", e.id, e.fields[0], file)
			}
		}
	}
	return nil
}

// lookUp finds a user by name or UID.
func lookUp(who, passwd, group string) (*account, error) {
	people, err := readAccounts(passwd)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(people, func(e entry) bool { return e.fields[0] == who })
	if at < 0 {
		at = slices.IndexFunc(people, func(e entry) bool { return e.fields[2] == who })
	}
	if at < 0 {
		return nil, fmt.Errorf("%s has no such user; make one with `useradd`, or give a range of UIDs, for example 200000-200063", passwd)
	}
	fields := people[at].fields
	if len(fields) != 7 {
		return nil, fmt.Errorf("the entry of the user in %s has %d fields, not 7", passwd, len(fields))
	}
	gid, err := strconv.ParseUint(fields[3], 10, 32)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the user's group in %s is %q, not a number", passwd, fields[3])
	case people[at].id == 0:
		return nil, errors.New(isRoot)
	case int(people[at].id) == os.Geteuid():
		return nil, errors.New("that is the agent's own user; choose another one, or leave the flag out")
	}
	a := &account{User: runner.User{UID: people[at].id, GID: uint32(gid)}, name: fields[0], home: fields[5], shell: fields[6]}
	groups, err := readAccounts(group)
	for _, g := range groups {
		if members := g.fields[len(g.fields)-1]; slices.Contains(strings.Split(members, ","), a.name) {
			a.Groups = append(a.Groups, g.id)
		}
	}
	return a, err
}

// entry is a line of a list of users or of groups: fields between colons, of which the third one is the id.
type entry struct {
	fields []string
	id     uint32
}

// readAccounts reads a list of users or of groups.
func readAccounts(file string) ([]entry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("looking for users: %w", err)
	}
	var all []entry
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) < 4 {
			continue // a comment, or an order to look elsewhere
		}
		if id, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			all = append(all, entry{fields, uint32(id)})
		}
	}
	return all, nil
}

// ranged reports whether each attempt has a user of its own.
func (u *users) ranged() bool { return u != nil && u.one == nil }

// size is how many attempts may run at once.
func (u *users) size() int {
	if !u.ranged() {
		return math.MaxInt
	}
	return int(u.last-u.first) + 1
}

// owns reports whether a UID is of the range.
func (u *users) owns(uid uint32) bool { return u.ranged() && u.first <= uid && uid <= u.last }

// edges are the users with the smallest and the largest numbers.
func (u *users) edges() []runner.User {
	if u.one != nil {
		return []runner.User{u.one.User}
	}
	return []runner.User{{UID: u.first, GID: u.first}, {UID: u.last, GID: u.last}}
}

// take returns the user of an attempt, nil for the agent's own; of a range one that no other attempt has. When all are taken it waits
// until one is free, and reports false if the attempt is stopped before.
func (u *users) take(stopped <-chan struct{}) (*account, bool) {
	switch {
	case u == nil:
		return nil, true
	case u.one != nil:
		return u.one, true
	}
	select {
	case a := <-u.free:
		return a, true
	case <-stopped:
		return nil, false
	}
}

// give takes back the user of an attempt of which nothing is left.
func (u *users) give(a *account) {
	if u.ranged() && a != nil {
		u.free <- a
	}
}

// environment returns the variables by which programs know their user. One of a range needs the attempt's folder.
func (a *account) environment(work *workDir) []string {
	env := []string{"USER=" + a.name, "LOGNAME=" + a.name, "SHELL=" + a.shell}
	if a.home != "" {
		return append(env, "HOME="+a.home)
	}
	return append(env, "HOME="+work.path, "TMPDIR="+work.path) // what lies in /tmp would be the next one's who gets the UID
}
