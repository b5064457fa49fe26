package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// shape is what jobs ask of a worker. All jobs of a shape would choose the same worker, so it keeps the best ones at hand: those are
// looked at again only when they have changed, and all workers only when none of the best is left.
type shape struct {
	scope       scope
	ask         amount // for one job
	resources   job.Resources
	constraints []job.Constraint
	affinities  []job.Affinity
	tolerations []string
	requires    []string
	spread      *family // nil: no matter
	apart       *family // nil: no matter
	scorers     []weighed

	best    []choice // the highest first
	more    bool     // there may be others that can take a job, none of them better than floor
	floor   choice
	spare   []*cell // memory for others
	others  []*cell // those others, and some that cannot any more, unless there are too many
	some    bool    // others has not all of them
	cursor  uint64  // up to where the log of changes was looked at; 0: look at all workers
	fits    bitset  // of cells, by index: the filters of facts let it pass
	kept    bitset  // it is among the best
	blocked uint64  // the last pass that found no worker for it
}

const (
	bestKept   = 64   // so many of the best workers a shape knows
	othersKept = 1024 // and so many others
)

// choice is a worker that can take a job of a shape, with its score.
type choice struct {
	score float64
	cell  *cell
}

// compare orders choices, the better one first.
func (a *choice) compare(b *choice) int {
	if c := cmp.Compare(b.score, a.score); c != 0 {
		return c
	}
	return a.cell.compare(b.cell)
}

func (c *cell) compare(d *cell) int {
	if t := cmp.Compare(c.tie, d.tie); t != 0 {
		return t
	}
	return cmp.Compare(c.worker.ID, d.worker.ID)
}

// family counts the running jobs of a name by the values of a worker's label.
type family struct {
	label   string
	running map[string]int
	shapes  []*shape // that look at it
}

type familyKey struct{ namespace, name, label string }

func (s *Scheduler) family(spec *job.Spec, label string) *family {
	if label == "" {
		return nil
	}
	key := familyKey{spec.Namespace, spec.Name, label}
	f := s.families[key]
	if f == nil {
		f = &family{label: label, running: make(map[string]int)}
		s.families[key] = f
	}
	return f
}

// count notes that a job of the family has come to a worker, or has left it; all scores of its shapes are another then.
func (f *family) count(c *cell, n int) {
	if f == nil {
		return
	}
	value := c.worker.Labels[f.label]
	if f.running[value] += n; f.running[value] == 0 {
		delete(f.running, value)
	}
	for _, sh := range f.shapes {
		sh.cursor = 0
	}
}

// shapeKey is what shapes differ in.
type shapeKey struct {
	scope               scope
	milliCPU, memoryMiB int32
	scoring             job.Scoring
	rest                string // extras, constraints and what is in a Placement; empty for most
}

// shapeRest writes what few specs have, so that equal specs give equal texts.
func shapeRest(spec *job.Spec) string {
	p := spec.Placement
	if len(spec.Resources.Extras)+len(spec.Constraints) == 0 && p == nil {
		return ""
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Resources.Extras)) {
		fmt.Fprintf(&b, "/%s=%d", name, spec.Resources.Extras[name])
	}
	for i := range spec.Constraints {
		writeConstraint(&b, &spec.Constraints[i])
	}
	if p == nil {
		return b.String()
	}
	for i := range p.Affinities {
		writeConstraint(&b, &p.Affinities[i].Constraint)
		fmt.Fprintf(&b, "*%d", p.Affinities[i].Weight)
	}
	for _, t := range p.Tolerations {
		fmt.Fprintf(&b, "/+%q", t)
	}
	for _, name := range p.Requires {
		fmt.Fprintf(&b, "/!%q", name)
	}
	if p.Spread != "" || p.Apart != "" {
		fmt.Fprintf(&b, "/%q %q %q %q", p.Spread, p.Apart, spec.Namespace, spec.Name)
	}
	return b.String()
}

func writeConstraint(b *strings.Builder, c *job.Constraint) {
	fmt.Fprintf(b, "/%q %d %q", c.Label, c.Operator, c.Values)
}

// shape returns the shape of a spec's jobs in a queue.
func (s *Scheduler) shape(spec *job.Spec, n *node, rest string) *shape {
	key := shapeKey{n.scope, spec.Resources.MilliCPU, spec.Resources.MemoryMiB, n.queue.Scoring, rest}
	if sh := s.shapes[key]; sh != nil {
		return sh
	}
	sh := &shape{scope: n.scope, ask: s.names.amount(spec.Resources, 1), resources: spec.Resources, constraints: spec.Constraints}
	if p := spec.Placement; p != nil {
		sh.affinities, sh.tolerations, sh.requires = p.Affinities, p.Tolerations, p.Requires
		sh.spread, sh.apart = s.family(spec, p.Spread), s.family(spec, p.Apart)
		for _, f := range []*family{sh.spread, sh.apart} {
			if f != nil && !slices.Contains(f.shapes, sh) {
				f.shapes = append(f.shapes, sh)
			}
		}
	}
	sh.scorers = scorersFor(sh, &n.queue.Scoring)
	s.shapes[key] = sh
	return sh
}

// choose returns the best worker that can take a job of the shape and that suits, nil when there is none.
func (s *Scheduler) choose(sh *shape, suits func(*cell) bool) *cell {
	s.review(sh)
	if c := sh.first(suits); c != nil {
		return c
	}
	if !sh.more {
		return nil
	}
	if sh.some {
		s.scan(sh)
	} else {
		s.work += len(sh.others)
		sh.turnToOthers()
	}
	return sh.first(suits)
}

func (sh *shape) first(suits func(*cell) bool) *cell {
	for i := range sh.best {
		if c := sh.best[i].cell; c.reserved == nil || suits(c) {
			return c
		}
	}
	return nil
}

// turnToOthers finds the best of those that were not good enough before.
func (sh *shape) turnToOthers() {
	others := sh.others
	sh.others, sh.more = sh.spare[:0], false
	for _, c := range others {
		sh.offer(c)
	}
	clear(others)
	sh.spare = others[:0]
}

// passOver notes that a worker can take a job and is not among the best.
func (sh *shape) passOver(c *cell) {
	if sh.more = true; sh.some {
		return
	}
	if sh.others = append(sh.others, c); len(sh.others) > othersKept {
		sh.some, sh.others = true, sh.others[:0]
	}
}

// review looks again at the workers that have changed since the shape was looked at last.
func (s *Scheduler) review(sh *shape) {
	end := s.changes.end
	if sh.cursor == 0 || end-sh.cursor > min(changesKept, uint64(max(len(s.cells.all), bestKept))) {
		s.scan(sh)
		return
	}
	for at := sh.cursor; at < end; at++ {
		c := s.changes.ring[at%changesKept]
		if c.changed != at {
			continue // it has changed again
		}
		if c.facts >= sh.cursor {
			sh.setFits(c)
		}
		sh.offer(c)
		s.work++
	}
	sh.cursor = end
}

// scan looks at all workers; in a large cluster at as many as it takes to find enough that can take a job.
func (s *Scheduler) scan(sh *shape) {
	sh.best, sh.others, sh.more, sh.some = sh.best[:0], sh.others[:0], false, false
	clear(sh.kept)
	renew := sh.cursor == 0 || s.changes.end-sh.cursor > changesKept
	all := s.cells.all
	for i := range all {
		c := all[i]
		if c == nil {
			continue
		}
		if renew || c.facts >= sh.cursor {
			sh.setFits(c)
		}
	}
	sh.cursor = s.changes.end
	begin := 0
	sampled := len(all) > s.options.SampleAbove
	if sampled {
		begin = s.scanned % len(all)
	}
	for n := range all {
		i := begin + n
		if i >= len(all) {
			i -= len(all)
		}
		s.work++
		if c := all[i]; c != nil {
			sh.offer(c)
		}
		if sampled && len(sh.best) == bestKept {
			s.scanned = i + 1
			sh.more, sh.some, sh.others, sh.floor = true, true, sh.others[:0], choice{score: math.Inf(-1)}
			return
		}
	}
}

func (sh *shape) setFits(c *cell) {
	sh.fits.set(c.index, passes(ofFacts, sh, c))
}

func (sh *shape) fit(c *cell) bool { return sh.fits.has(c.index) }

// bitset is a set of small numbers.
type bitset []uint64

func (b bitset) has(i int) bool { return i/64 < len(b) && b[i/64]&(1<<(i%64)) != 0 }

func (b *bitset) set(i int, in bool) {
	for len(*b) <= i/64 {
		*b = append(*b, 0)
	}
	(*b)[i/64] &^= 1 << (i % 64)
	if in {
		(*b)[i/64] |= 1 << (i % 64)
	}
}

// offer puts a worker where it belongs among the best, or takes it out.
func (sh *shape) offer(c *cell) {
	if sh.kept.has(c.index) {
		sh.kept.set(c.index, false)
		at := slices.IndexFunc(sh.best, func(b choice) bool { return b.cell.index == c.index })
		sh.best = slices.Delete(sh.best, at, at+1)
	}
	if !c.usable || !sh.fit(c) || !passes(ofRoom, sh, c) {
		return
	}
	new := choice{sh.score(c), c}
	if sh.more && (sh.floor.cell == nil && new.score <= sh.floor.score || sh.floor.cell != nil && new.compare(&sh.floor) >= 0) {
		sh.passOver(c)
		return
	}
	at, _ := slices.BinarySearchFunc(sh.best, new, func(a, b choice) int { return a.compare(&b) })
	sh.best = slices.Insert(sh.best, at, new)
	sh.kept.set(c.index, true)
	if len(sh.best) > bestKept {
		sh.floor = sh.best[bestKept]
		sh.best = sh.best[:bestKept]
		sh.kept.set(sh.floor.cell.index, false)
		sh.passOver(sh.floor.cell)
	}
}
