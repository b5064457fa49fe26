//go:build linux

package procrunner

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups makes a control group for each step.
//
// Version 2 is used wherever it is mounted, alone or beside version 1: a process is born in its group, so it cannot have
// children outside, and cgroup.kill ends all of them at once. With version 1 alone a process is put into its group of the
// freezer hierarchy right after its start. Memory is limited by version 2 where that has the controller, else by version 1.
type cgroups struct {
	root     string // the folder under which the agent makes groups
	prefix   string // of the names of all groups that this agent makes, in this life and others
	memory   string // the same in version 1's hierarchy for memory; empty: none
	version2 bool
	pool     pool // of groups of version 2
}

// groupPrefix begins the names of all agents' groups.
const groupPrefix = "hodei-"

// openCgroups finds out what can be used. instance tells the groups of agents on one machine apart.
func openCgroups(instance string) (*cgroups, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	own, err := ownGroups()
	if err != nil {
		return nil, err
	}
	c := &cgroups{prefix: groupPrefix + instance + "-"}
	switch {
	case mounts["2"] != "":
		c.version2, c.root = true, filepath.Join(mounts["2"], own[""])
	case mounts["freezer"] != "":
		c.root = filepath.Join(mounts["freezer"], own["freezer"])
	default:
		return nil, errors.New("no hierarchy is mounted that can be used")
	}
	if mounts["memory"] != "" {
		c.memory = filepath.Join(mounts["memory"], own["memory"])
	}
	return c, c.probe()
}

func (c *cgroups) mode() string {
	if c.version2 {
		return "cgroup2"
	}
	return "cgroup1"
}

// probe makes a group and removes it, because being allowed to is the question.
func (c *cgroups) probe() error {
	dir := filepath.Join(c.root, c.prefix+"probe")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var missing error
	if c.version2 {
		_, missing = os.Stat(filepath.Join(dir, "cgroup.kill"))
	}
	if err := errors.Join(missing, os.Remove(dir)); err != nil {
		return err
	}
	if c.memory != "" {
		dir := filepath.Join(c.memory, filepath.Base(dir))
		if os.Mkdir(dir, 0o755) != nil || os.Remove(dir) != nil {
			c.memory = ""
		}
	}
	return nil
}

// cgroupMounts finds where the hierarchies are mounted: "2" for version 2, else by controller.
func cgroupMounts() (map[string]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch right[0] {
		case "cgroup2":
			mounts["2"] = left[4]
		case "cgroup":
			for option := range strings.SplitSeq(right[2], ",") {
				mounts[option] = left[4]
			}
		}
	}
	return mounts, nil
}

// ownGroups returns the groups of this process: "" for version 2, else by controller.
func ownGroups() (map[string]string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	groups := make(map[string]string)
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		parts := strings.SplitN(scanner.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			groups[controller] = parts[2]
		}
	}
	return groups, scanner.Err()
}

// group is the scope of one step.
type group struct {
	of       *cgroups
	dir      string
	memory   string // version 1's group for memory; empty: none
	version2 bool
	lent     *lent       // the group is from the pool; nil: it is this step's own
	killed   atomic.Bool // it does not go back: some kernels kill at once whoever is born into a group that was killed before
}

func explainMake(err error) error {
	if err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	return fmt.Errorf("making a control group: %w", err)
}

func (c *cgroups) create(id string, memoryLimit int64) (*group, error) {
	if memoryLimit <= 0 && c.version2 {
		l, err := c.pool.take(filepath.Join(c.root, c.prefix+poolName))
		if err != nil {
			return nil, explainMake(err)
		}
		return &group{of: c, dir: l.dir, version2: true, lent: l}, nil
	}
	g := &group{dir: filepath.Join(c.root, c.prefix+id), version2: c.version2}
	if err := explainMake(os.Mkdir(g.dir, 0o755)); err != nil || memoryLimit <= 0 {
		return g, err
	}
	limit := []byte(strconv.FormatInt(memoryLimit, 10))
	if c.version2 && os.WriteFile(filepath.Join(g.dir, "memory.max"), limit, 0) == nil {
		_ = os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0)
		return g, nil
	}
	if c.memory == "" {
		return g, nil // the machine cannot enforce it
	}
	g.memory = filepath.Join(c.memory, c.prefix+id)
	if err := os.Mkdir(g.memory, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		g.close()
		return nil, fmt.Errorf("making a control group for memory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(g.memory, "memory.limit_in_bytes"), limit, 0); err != nil {
		g.close()
		return nil, fmt.Errorf("limiting memory to %d bytes: %w", memoryLimit, err)
	}
	return g, nil
}

// start starts the program in the step's groups.
func (g *group) start(p *program) (*child, error) {
	switch {
	case g.lent != nil:
		p.attr.Sys.UseCgroupFD, p.attr.Sys.CgroupFD = true, g.lent.folder
	case g.version2:
		dir, err := os.Open(g.dir)
		if err != nil {
			return nil, err
		}
		defer dir.Close() //nolint:errcheck // only a handle
		p.attr.Sys.UseCgroupFD, p.attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	leave, err := g.enterMemory()
	if err != nil {
		return nil, err
	}
	defer leave()
	first, err := p.start()
	if err == nil && !g.version2 {
		// Children that were born before this line stay outside; kill looks for them by their session too.
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(first.pid)), 0)
	}
	return first, err
}

func (g *group) pids() []int {
	data, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killPause is how long the kernel gets between two looks at a group that is being killed.
const killPause = 200 * time.Microsecond

func (g *group) kill() {
	for pause := killPause; g.populated(); pause = min(2*pause, 50*time.Millisecond) {
		g.killed.Store(true)
		if !g.version2 || os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) != nil {
			for _, pid := range g.pids() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(pause)
	}
}

// populated reports whether anything lives in the group, or in groups that the step made below it.
func (g *group) populated() bool {
	switch {
	case g.lent != nil:
		return g.lent.populated()
	case !g.version2:
		return len(g.pids()) > 0
	}
	data, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	return err == nil && isPopulated(data)
}

// oomKilled reports whether the kernel killed a process of the group for want of memory.
func (g *group) oomKilled() bool {
	if g.lent != nil {
		return false // it has no limit
	}
	file := filepath.Join(g.dir, "memory.events")
	if g.memory != "" {
		file = filepath.Join(g.memory, "memory.oom_control")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if count, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return count != "0"
		}
	}
	return false
}

// close removes the groups. A process that has just ended may hold one for a moment.
func (g *group) close() {
	if g.lent != nil {
		if !g.killed.Load() && g.of.pool.give(g.lent) {
			return
		}
		g.lent.closeFiles()
	}
	for _, dir := range []string{g.dir, g.memory} {
		for pause := killPause; dir != "" && pause < time.Second; pause *= 2 {
			if err := removeGroup(dir); err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			time.Sleep(pause)
		}
	}
}

// removeGroup removes a group and those that the step made below it. The files in a group cannot be removed and go with it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// poolName is what the names of a pool's groups have after their agent's prefix.
const poolName = "free-"

// recover ends and removes the groups that a former life of this agent has left below the same root, and the empty ones of others.
func (c *cgroups) recover() error {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return fmt.Errorf("looking for control groups of a former agent: %w", err)
	}
	for _, e := range entries {
		switch {
		case !e.IsDir() || !strings.HasPrefix(e.Name(), groupPrefix):
			continue
		case !strings.HasPrefix(e.Name(), c.prefix):
			if strings.Contains(e.Name(), "-"+poolName) {
				removeAbandoned(filepath.Join(c.root, e.Name()))
			}
			continue
		}
		g := &group{dir: filepath.Join(c.root, e.Name()), version2: c.version2}
		if c.memory != "" {
			g.memory = filepath.Join(c.memory, e.Name())
		}
		g.kill()
		g.close()
	}
	return nil
}
