package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// passable makes a folder that every user may pass, with copies of programs in it that every user may run.
func passable(t *testing.T, programs ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run jobs as other users")
	}
	dir, err := os.MkdirTemp("", "hodei-e2e-") //nolint:usetesting // others must reach it, and a test's folders are its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range programs {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(path)), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// attacks are what a job must not be able to do: shell commands that succeed when it can. What is in capitals is set for the script; KILL and
// TERM are signals.
var attacks = []struct{ name, script string }{
	{"the agent's key and certificate", `cat $STATE/identity/identity.pem`},
	{"the names in the agent's identity", `ls $STATE/identity`},
	{"the agent's journal", `cat $STATE/journal`},
	{"the agent's lock", `exec 3<$STATE/lock`},
	{"the names in the state folder", `ls $STATE`},
	{"a file in the state folder", `touch $STATE/planted`},
	{"a file in the place of the key", `mv $STATE/identity $STATE/away && mv $STATE/away $STATE/identity`},
	{"other jobs' output", `ls $STATE/attempts`},
	{"the agent's memory", `dd if=/proc/$AGENT/mem bs=4096 count=1 skip=$((0x$(head -1 /proc/$AGENT/maps | cut -d- -f1)/4096))`},
	{"writing the agent's memory", `exec 3<>/proc/$AGENT/mem`},
	{"the agent's environment", `cat /proc/$AGENT/environ`},
	{"the agent's files", `ls /proc/$AGENT/fd`},
	{"the agent's root", `ls /proc/$AGENT/root/`},
	{"the agent's folder", `ls /proc/$AGENT/cwd/`},
	{"the agent's program", `readlink /proc/$AGENT/exe`},
	{"the agent's map", `head -1 /proc/$AGENT/maps | grep .`},
	{"the names of other jobs' folders", `ls $STATE/work`},
	{"the names in another job's folder", `ls $WORK`},
	{"a file in another job's folder", `cat $WORK/mine`},
	{"a new file in another job's folder", `touch $WORK/planted`},
	{"another job's folder by its process", `ls /proc/$OTHER/cwd/`},
	{"another job's environment", `cat /proc/$OTHER/environ`},
	{"another job's memory", `dd if=/proc/$OTHER/mem bs=4096 count=1 skip=$((0x$(head -1 /proc/$OTHER/maps | cut -d- -f1)/4096))`},
	{"writing another job's memory", `exec 3<>/proc/$OTHER/mem`},
	{"another job's output", `echo forged >/proc/$OTHER/fd/1`},
	{"another job's secret", `cat $FILE`},
	{"the names of another job's secrets", `ls $(dirname $FILE)`},
	{"the names of all secrets", `ls $(dirname $HODEI_AGENT_SOCKET)`},
	{"a file among the secrets", `touch $(dirname $FILE)/planted`},
	{"another job's control group", `echo 0 >$GROUP/cgroup.freeze`},
	{"being in another job's control group", `sh -c 'echo $$ >$GROUP/cgroup.procs'`},
	{"ending the agent in good order", `kill -$TERM $AGENT`},
	{"ending another job in good order", `kill -$TERM $OTHER`},
	{"ending another job", `kill -$KILL $OTHER`},
	{"ending the agent", `kill -$KILL $AGENT`},
	{"becoming root", `test $($SETUID -u) = 0`},
}

// victim is a job that runs beside others and has something to hide.
type victim struct {
	*daemon
	pid, work, file, group string
}

func (w *world) victim(t *testing.T, proceed string) victim {
	t.Helper()
	v := victim{daemon: startDaemon(t, w.env(), "hodei", "run", "-e", "PRIVATE=hidden", "--secret-file", "F=TOKEN", "--", "sh", "-c",
		`cat $F >/dev/null && echo secret >mine && echo "at $$ $(pwd) $F $(sed -n s/^0:://p /proc/self/cgroup)"
while [ ! -e `+proceed+` ]; do sleep 0.05; done; echo said by the victim`)}
	await(t, "the other job", func() bool { return strings.HasSuffix(v.output.String(), "\n") })
	if n, err := fmt.Sscanf(v.output.String(), "at %s %s %s %s\n", &v.pid, &v.work, &v.file, &v.group); n < 3 {
		t.Fatalf("the other job wrote %q: %v", v.output, err)
	}
	mounts, err := exec.Command("sh", "-c", `awk '/ - cgroup2 / {print $5; exit}' /proc/self/mountinfo`).Output()
	if err != nil {
		t.Fatal(err)
	}
	v.group = strings.TrimSpace(string(mounts)) + v.group
	return v
}

// attackFromJob runs all attacks in one job and tells which of them succeeded. With harmless signals are only tried.
func (w *world) attackFromJob(t *testing.T, agent *daemon, state string, v victim, setuid string, harmless bool, program string) map[string]bool {
	t.Helper()
	kill, term := "KILL", "TERM"
	if harmless {
		kill, term = "0", "0"
	}
	script := `export AGENT=` + fmt.Sprint(agent.cmd.Process.Pid) + ` STATE=` + state + ` OTHER=` + v.pid + ` WORK=` + v.work + ` FILE=` + v.file +
		` GROUP=` + v.group + ` SETUID=` + setuid + ` KILL=` + kill + ` TERM=` + term + "\n"
	for i, a := range attacks {
		script += fmt.Sprintf("if (%s) >/dev/null 2>&1; then echo %d got; else echo %[2]d denied; fi\n", a.script, i)
	}
	script += `printf 'said by the victim' | ` + program + " mask add 2>&1 && echo masked\n"
	got := w.hodei("run", "--", "sh", "-c", script)
	if got.code != 0 || !strings.HasSuffix(got.stdout, "\nmasked\n") {
		t.Fatalf("the attacks ended with %+v", got)
	}
	succeeded := make(map[string]bool)
	lines := strings.Split(got.stdout, "\n")
	for i, a := range attacks {
		switch lines[i] {
		case fmt.Sprintf("%d got", i):
			succeeded[a.name] = true
		case fmt.Sprintf("%d denied", i):
			succeeded[a.name] = false
		default:
			t.Errorf("%s: %q", a.name, lines[i])
		}
	}
	return succeeded
}

// A job of another user can do nothing of all that to the agent and to other jobs. The same job as the agent's own user, who is root here, can do
// all of it, so the attacks are such.
func TestJobsSeeNothingOfTheAgentAndOfOthers(t *testing.T) {
	t.Parallel()
	id, err := exec.LookPath("id")
	if err != nil {
		t.Fatal(err)
	}
	for _, runAs := range []string{"", "3000000-3000007"} {
		t.Run("run as "+runAs, func(t *testing.T) {
			t.Parallel()
			dir := passable(t, program(t, "hodei-agent"), id)
			setuid := filepath.Join(dir, "id")
			if err := os.Chmod(setuid, 0o755|os.ModeSetuid); err != nil {
				t.Fatal(err)
			}
			stranger := exec.Command(setuid, "-u")
			stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 3000099, Gid: 3000099}}
			if out, err := stranger.Output(); err != nil || string(out) != "0\n" {
				t.Fatalf("a program with the setuid bit makes nobody root here, so nothing is shown: %q, %v", out, err)
			}
			w := newWorldIn(t, dir)
			w.t = t
			agent := w.agent("w1", "--run-as", runAs)
			w.setSecret("TOKEN", secretValue)
			proceed := filepath.Join(dir, "proceed")
			v := w.victim(t, proceed)
			state := filepath.Join(dir, "agent-w1")
			succeeded := w.attackFromJob(t, agent, state, v, setuid, runAs == "", filepath.Join(dir, "hodei-agent"))
			_, err := os.Stat(filepath.Join(v.group, "cgroup.freeze"))
			for _, a := range attacks {
				if strings.Contains(a.name, "control group") && err != nil {
					continue // there are none of version 2
				}
				t.Run(a.name, func(t *testing.T) {
					if want := runAs == ""; succeeded[a.name] != want {
						t.Errorf("it could be done: %v, want %v", succeeded[a.name], want)
					}
				})
			}
			if err := os.WriteFile(proceed, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			// The other job ends as it would, and nobody has added a secret to it.
			if code := v.awaitExit(t); code != 0 || !strings.HasSuffix(v.output.String(), "\nsaid by the victim\n") {
				t.Errorf("the other job ended with %d: %s", code, v.output)
			}
			w.awaitWorker("w1", "WORKER_STATE_READY")
			select {
			case <-agent.exited:
				t.Error("the agent has ended")
			default:
			}
		})
	}
}

// With a range each job has a user of its own, with nothing but that; what it needs works all the same, and all of it goes.
func TestJobHasAUserOfItsOwn(t *testing.T) {
	t.Parallel()
	dir := passable(t)
	w := newWorldIn(t, dir)
	agent := w.agentWith([]string{"HODEI_AGENT_RUN_AS=3000100-3000102", "HODEI_AGENT_TOKEN=unused", "DATABASE_PASSWORD=hidden"}, "w1")
	if !strings.Contains(agent.output.String(), "no more UIDs") {
		t.Errorf("the agent does not say that it takes fewer jobs:\n%s", agent.output)
	}
	state := filepath.Join(dir, "agent-w1")
	got := w.hodei("run", "--", "sh", "-c", `set -e
test $(id -u) = $USER -a $(id -g) = $USER -a "$(id -G)" = $USER -a $LOGNAME = $USER -a $SHELL = /bin/sh
test $HOME = $(pwd) -a $TMPDIR = $HOME; mktemp >/dev/null
! env | grep -E 'HODEI_AGENT_(TOKEN|RUN_AS)|PASSWORD'
! grep -E '^Cap\w+:\s0*[1-9a-f]|NoNewPrivs:\s0' /proc/self/status
echo out >/dev/stdout; echo err >/dev/stderr; stat -c '%a %u' . >mode; grep -qx "700 $USER" mode; mkdir -m 0 locked; pwd`)
	if want := "out\n" + state + "/work/"; !strings.HasPrefix(got.stdout, want) || got.stderr != "err\n" || got.code != 0 {
		t.Errorf("run gave %+v, want %q", got, want)
	}
	if got := w.hodei("run", "--tty", "--", "sh", "-c", `echo by its name >$(tty); stat -c %a $(tty); echo >/dev/tty`); got.stdout != "by its name\r\n600\r\n\r\n" {
		t.Errorf("on a terminal run gave %+v", got)
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := w.hodei("run", "-w", closed, "--", "true"); got.code != 125 || !strings.Contains(got.stderr, "may not be entered by the user") {
		t.Errorf("in a folder of another run gave %+v", got)
	}
	if got := w.hodei("run", "-w", dir, "--", "sh", "-c", "pwd; echo $HOME"); !strings.HasPrefix(got.stdout, dir+"\n"+state+"/work/") {
		t.Errorf("in a folder of its choice run gave %+v", got)
	}
	// As many run at once as there are users, each as another one, and the next ones when they are done.
	busy := filepath.Join(dir, "busy")
	if err := errors.Join(os.Mkdir(busy, 0o700), os.Chmod(busy, 0o777)); err != nil {
		t.Fatal(err)
	}
	var jobs []string
	for range 9 {
		jobs = append(jobs, w.submit("--", "sh", "-c", "id -u; mkdir "+busy+"/$USER && sleep 0.2 && rmdir "+busy+"/$USER"))
	}
	users := make(map[string]int)
	for _, id := range jobs {
		w.must("wait", id)
		users[strings.TrimSpace(w.must("logs", id))]++
	}
	if len(users) != 3 {
		t.Errorf("the jobs ran as %v", users)
	}
	left, err := os.ReadDir(filepath.Join(state, "work"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
}

// What runs still when the agent is killed is ended by the next one, before anybody else gets its user.
func TestKilledAgentLeavesNoUserBusy(t *testing.T) {
	t.Parallel()
	dir := passable(t)
	w := newWorldIn(t, dir)
	args := []string{"--run-as", "3000200-3000200"}
	agent := w.agent("w1", args...)
	mark := "sleep 1007.25"
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "env -i setsid "+mark+" & echo goes; "+mark)
	await(t, "the job", func() bool { return processes(t, mark) == 2 })
	agent.kill()
	stranger := exec.Command("sleep", "1007.25") // what is found neither by a group nor by a variable
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 3000200, Gid: 3000200}}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	go stranger.Wait()
	startDaemon(t, nil, "hodei-agent", append([]string{"--server", w.url, "--state-dir", filepath.Join(dir, "agent-w1"), "--name", "w1"}, args...)...)
	run.awaitExit(t)
	if got := w.hodei("run", "--", "id", "-u"); got.stdout != "3000200\n" || processes(t, mark) > 0 {
		t.Errorf("the next job gave %+v beside %d processes of the former", got, processes(t, mark))
	}
}

// Where jobs run as the agent's own user, and that is not root, the agent's memory and environment are hidden from them.
func TestMemoryOfAnAgentIsHidden(t *testing.T) {
	t.Parallel()
	dir := passable(t, program(t, "hodei-agent"))
	w := newWorldIn(t, dir)
	home := filepath.Join(dir, "home")
	const uid = 3000300
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, uid, uid)); err != nil {
		t.Fatal(err)
	}
	secret, pin := w.token()
	agent := prepare(filepath.Join(dir, "hodei-agent"), "--server", w.url, "--state-dir", home, "--name", "w1", "--ca-pin", pin)
	agent.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HODEI_AGENT_TOKEN=" + secret}
	agent.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	agent.start(t)
	w.awaitWorker("w1", "WORKER_STATE_READY")
	got := w.hodei("run", "--", "sh", "-c", fmt.Sprintf(`id -u
for f in environ mem maps; do (head -c 1 /proc/%[1]d/$f || exec 3</proc/%[1]d/$f) >/dev/null 2>&1 && echo $f; done; kill -0 %[1]d`, agent.cmd.Process.Pid))
	if want := fmt.Sprintln(uid); got.stdout != want || got.code != 0 {
		t.Errorf("the job gave %+v, want %q", got, want)
	}
}

// An agent that cannot do what --run-as asks for does not start, and says what to do.
func TestRunAsThatIsRefused(t *testing.T) {
	t.Parallel()
	dir := passable(t, program(t, "hodei-agent"))
	w := newWorldIn(t, dir)
	w.agent("w1", "--run-as", "3000400-3000409")
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		runAs, state, want string
		uid                uint32
	}{
		"root":          {runAs: "root", want: "0 is root"},
		"unknown":       {runAs: "no-such-user", want: "useradd"},
		"empty":         {runAs: "10-5", want: "is empty"},
		"others' UIDs":  {runAs: "65530-65540", want: "is already the number of"},
		"another agent": {runAs: "3000409-3000420", want: "another agent"},
		"closed":        {runAs: "3000410-3000419", state: filepath.Join(closed, "state"), want: "chmod o+x " + closed},
		"not root":      {runAs: "3000430-3000439", uid: 3000499, want: "start the agent as root"},
	} {
		if tc.state == "" {
			tc.state = filepath.Join(dir, "refused")
		}
		agent := prepare(filepath.Join(dir, "hodei-agent"), "--server", w.url, "--state-dir", tc.state, "--run-as", tc.runAs)
		if tc.uid != 0 {
			agent.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.uid, Gid: tc.uid}}
		}
		agent.start(t)
		if code := agent.awaitExit(t); code != 1 || !strings.Contains(agent.output.String(), tc.want) {
			t.Errorf("%s: the agent ended with %d, want 1 and %q:\n%s", name, code, tc.want, agent.output)
		}
	}
	if got := w.hodei("agent", "--server", w.url, "--state-dir", dir+"/refused", "--run-as", "0-3"); got.code == 0 || !strings.Contains(got.stderr, "0 is root") {
		t.Errorf("hodei agent gave %+v", got)
	}
}
