package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/agent/runner"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// someUsers writes lists of users and of groups.
func someUsers(t *testing.T) (passwd, group string) {
	t.Helper()
	dir := t.TempDir()
	passwd, group = filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	err := errors.Join(os.WriteFile(passwd, []byte(`root:x:0:0:root:/root:/bin/bash
toor:x:0:0::/root:/bin/sh
# a comment: with: some: colons
+::::::
build-1:x:61001:61001:,,,:/home/build-1:/bin/zsh
1002:x:63003:63003::/home/number:/bin/sh
worse:x:61005:none::/:/bin/sh
short:x:61006:1006
self:x:`+fmt.Sprint(max(os.Geteuid(), 7777))+`:1::/:/bin/sh
service:x:64999:64999::/nonexistent:/usr/sbin/nologin`), 0o600),
		os.WriteFile(group, []byte(`root:x:0:
docker:x:990:build-1x,xbuild-1
ci:x:3000:other,build-1
audio:x:3001:build-1
`), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return passwd, group
}

func TestRunAsIsRead(t *testing.T) {
	t.Parallel()
	passwd, group := someUsers(t)
	build := &account{User: runner.User{UID: 61001, GID: 61001, Groups: []uint32{3000, 3001}}, name: "build-1", home: "/home/build-1", shell: "/bin/zsh"}
	for text, want := range map[string]*account{
		"build-1": build, "61001": build,
		"1002":    {User: runner.User{UID: 63003, GID: 63003}, name: "1002", home: "/home/number", shell: "/bin/sh"}, // a name comes first
		"service": {User: runner.User{UID: 64999, GID: 64999}, name: "service", home: "/nonexistent", shell: "/usr/sbin/nologin"},
	} {
		u, err := newUsers(text, passwd, group)
		if err != nil || !reflect.DeepEqual(u.one, want) || u.size() != math.MaxInt || u.owns(want.UID) {
			t.Errorf("%s gave %+v, %v, want %+v", text, u, err, want)
		}
	}
	if u, err := newUsers("", passwd, group); u != nil || err != nil {
		t.Errorf("no user gave %v, %v", u, err)
	}
	u, err := newUsers("200000-200002", passwd, group)
	if err != nil || u.size() != 3 || u.owns(199999) || !u.owns(200000) || !u.owns(200002) || u.owns(200003) {
		t.Fatalf("a range gave %+v, %v", u, err)
	}
	for _, want := range []string{"200000", "200001", "200002"} {
		a, _ := u.take(nil)
		env := a.environment(&workDir{path: "/work/1"})
		if fmt.Sprint(a.UID) != want || a.GID != a.UID || a.Groups != nil ||
			!slices.Equal(env, []string{"USER=" + want, "LOGNAME=" + want, "SHELL=/bin/sh", "HOME=/work/1", "TMPDIR=/work/1"}) {
			t.Errorf("one of a range is %+v with %q, want %s", a, env, want)
		}
	}
	if env := build.environment(nil); !slices.Equal(env, []string{"USER=build-1", "LOGNAME=build-1", "SHELL=/bin/zsh", "HOME=/home/build-1"}) {
		t.Errorf("a user has %q", env)
	}
}

func TestRunAsThatCannotBe(t *testing.T) {
	t.Parallel()
	passwd, group := someUsers(t)
	for text, want := range map[string]string{
		"root": "0 is root", "toor": "0 is root", "0": "0 is root", "0-5": "0 is root",
		"absent": "useradd", "1234": "useradd", "ci": "useradd", "a-b": "useradd", "+": "useradd", " build-1": "useradd", "build-1,service": "useradd",
		"worse": "not a number", "short": "not 7",
		"5-4": "is empty", "200000-": "two numbers", "-200000": "two numbers", "-": "two numbers", "1-2-3": "two numbers", "-5--3": "two numbers",
		"200000-4294967294": "two numbers", "200000-99999999999999999999": "two numbers", "4294967293-4294967295": "two numbers",
		"200000-204096": "4097 UIDs", "200000-4294967293": "at most 4096",
		"61000-61063": "61001 is already the number of build-1", "980-995": "990 is already the number of docker", "64000-64999": "of service",
	} {
		if u, err := newUsers(text, passwd, group); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--run-as "+text) {
			t.Errorf("%q gave %+v, %v, want an error with %q", text, u, err, want)
		}
	}
	if os.Geteuid() != 0 {
		if _, err := newUsers("self", passwd, group); err == nil || !strings.Contains(err.Error(), "own user") {
			t.Errorf("the agent's own user gave %v", err)
		}
	}
	if _, err := newUsers("200000-200001", passwd+"-", group); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a list of users: %v", err)
	}
}

func TestSlotsAreNoMoreThanUsers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int32{"": 50, "3100000-3100009": 10, "3100000-3100099": 50} {
		c, err := Config{ServerURL: "x", StateDir: "y", RunAs: text, Capacity: Capacity{Slots: 50}}.withDefaults()
		if err != nil || c.Capacity.Slots != want {
			t.Errorf("with %q there are %d slots, want %d: %v", text, c.Capacity.Slots, want, err)
		}
	}
}

// No two attempts have the same user at once, whoever takes and gives back when; the one that has been unused for longest is next; and all
// come back.
func TestNoTwoAttemptsHaveTheSameUser(t *testing.T) {
	t.Parallel()
	passwd, group := someUsers(t)
	stopped := make(chan struct{})
	close(stopped)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5).Draw(t, "size")
		u, err := newUsers(fmt.Sprintf("200000-%d", 200000+size-1), passwd, group)
		if err != nil {
			t.Fatal(err)
		}
		var line, taken []uint32 // as they must be
		had := make(map[uint32]*account)
		for id := range size {
			line = append(line, uint32(200000+id))
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				if len(line) == 0 {
					if a, ok := u.take(stopped); ok {
						t.Fatalf("all were taken, and %d was given out again", a.UID)
					}
					return
				}
				a, ok := u.take(nil)
				if !ok || a.UID != line[0] || had[a.UID] != nil {
					t.Fatalf("took %+v, want %d; taken are %v", a, line[0], taken)
				}
				line, taken = line[1:], append(taken, a.UID)
				had[a.UID] = a
			},
			"give": func(t *rapid.T) {
				if len(taken) == 0 {
					t.Skip("none is taken")
				}
				at := rapid.IntRange(0, len(taken)-1).Draw(t, "at")
				uid := taken[at]
				u.give(had[uid])
				delete(had, uid)
				line, taken = append(line, uid), slices.Delete(taken, at, at+1)
			},
			"": func(t *rapid.T) {
				if len(u.free) != len(line) {
					t.Fatalf("%d are free, want %d", len(u.free), len(line))
				}
			},
		})
	})
}

func TestUsersAreTakenFromManySides(t *testing.T) {
	t.Parallel()
	passwd, group := someUsers(t)
	u, err := newUsers("200000-200002", passwd, group)
	if err != nil {
		t.Fatal(err)
	}
	var in [3]sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 100 {
				a, _ := u.take(nil)
				if !in[a.UID-200000].TryLock() {
					t.Errorf("%d was given to two", a.UID)
					return
				}
				in[a.UID-200000].Unlock()
				u.give(a)
			}
		})
	}
	all.Wait()
	if len(u.free) != 3 {
		t.Errorf("%d came back, want 3", len(u.free))
	}
}

// An attempt that waits for a user can be stopped, and has not run.
func TestAttemptThatWaitsForAUserIsStopped(t *testing.T) {
	passwd, group := someUsers(t)
	synctest.Test(t, func(t *testing.T) {
		u, err := newUsers("200000-200000", passwd, group)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := u.take(nil)
		waits := newSlots(&agent{config: Config{users: u}}).take([]*hwpv1.Assign{assignTo(ref("job_a", 1))})[0]
		ended := make(chan *hwpv1.Outcome)
		go func() {
			outcome, _ := waits.runSteps()
			ended <- outcome
		}()
		synctest.Wait()
		waits.stop(false, hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED, "first")
		waits.stop(true, hwpv1.OutcomeKind_OUTCOME_KIND_LOST, "second")
		if got := <-ended; got.GetMessage() != "first" || waits.account != nil {
			t.Errorf("the attempt ended with %v and has %v", got, waits.account)
		}
		if u.give(first); len(u.free) != 1 {
			t.Errorf("%d are free", len(u.free))
		}
	})
}

// everyone is a process to which all processes belong.
type everyone struct{ runner.Process }

func (everyone) Has(int) bool { return true }

// The number of a process that has ended may be that of a step by now; its user is still not the step's.
func TestCallerIsOfTheAttemptsUser(t *testing.T) {
	t.Parallel()
	own := &attempt{process: everyone{}}
	ranged := &attempt{process: everyone{}, account: &account{User: runner.User{UID: 200000}}}
	if !own.has(1, 5) || !ranged.has(1, 200000) || ranged.has(1, 200001) || ranged.has(1, 0) {
		t.Error("who calls is known by more or less than the process and the user")
	}
}
