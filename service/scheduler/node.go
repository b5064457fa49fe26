package scheduler

import (
	"cmp"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// node is a namespace or a queue, or the root of all. What there is to give goes to the child that holds least for its weight, and
// so on down to the jobs.
type node struct {
	name     string
	parent   *node // nil: the root
	weight   float64
	band     int32
	limits   job.Limits
	paused   bool
	queue    job.Queue // settings that are of queues only
	scope    scope     // which workers there are for a queue
	used     amount    // by running jobs, of its children too
	own      amount    // by running jobs of its own
	starts   bucket
	waiting  int      // jobs of its own
	groups   []*group // with waiting jobs
	byShape  map[*shape]*group
	place    int  // among the nodes that have groups
	children int  // how many nodes have it as their parent
	set      bool // its settings are not those of nodes that nobody has made

	// In the pass under way.
	pass   uint64 // in which the rest was set
	opened bool   // it is among the open ones of its parent
	key    float64
	open   heap[*node]
	turn   heap[*group]
}

func newNode(name string, parent *node) *node {
	n := &node{name: name, parent: parent, weight: job.DefaultWeight, byShape: make(map[*shape]*group)}
	if parent != nil {
		parent.children++
	}
	n.open.before = before
	n.turn.before = func(a, b *group) bool { return a.urgency().compare(b.urgency()) < 0 }
	return n
}

type queueKey struct{ namespace, name string }

// namespace returns the node of a namespace; a new one has the settings of those that nobody has made.
func (s *Scheduler) namespace(name string) *node {
	n := s.namespaces[name]
	if n == nil {
		n = newNode(name, s.root)
		s.namespaces[name] = n
	}
	return n
}

// queue returns the node of a queue; a new one has the settings of those that nobody has made.
func (s *Scheduler) queue(namespace, name string) *node {
	key := queueKey{namespace, name}
	n := s.queues[key]
	if n == nil {
		n = newNode(name, s.namespace(namespace))
		n.queue, n.scope = job.DefaultQueueSettings(namespace, name), s.scopeOf(namespace, name)
		s.queues[key] = n
	}
	return n
}

// SetNamespace changes the settings of a namespace.
func (s *Scheduler) SetNamespace(settings job.Namespace) {
	n := s.namespace(settings.Name)
	n.weight, n.limits = float64(settings.Weight), settings.Limits
	n.set = settings != job.DefaultNamespaceSettings(settings.Name)
	n.starts.limit(settings.Limits.StartsPerMinute)
}

// SetQueue changes the settings of a queue. Its parent must be there, and must not be below it; else it is under its namespace.
// A queue that is taken away gets the settings of those that nobody has made.
func (s *Scheduler) SetQueue(settings job.Queue) {
	n := s.queue(settings.Namespace, settings.Name)
	scored := n.queue.Scoring != settings.Scoring || n.queue.Ageing != settings.Ageing
	n.queue, n.weight, n.band = settings, float64(settings.Weight), settings.Band
	n.limits, n.paused = settings.Limits, settings.Paused
	n.set = settings != job.DefaultQueueSettings(settings.Namespace, settings.Name)
	n.starts.limit(settings.Limits.StartsPerMinute)
	parent := s.namespace(settings.Namespace)
	if settings.Parent != "" {
		if p := s.queues[queueKey{settings.Namespace, settings.Parent}]; p != nil && !p.under(n) {
			parent = p
		}
	}
	n.moveTo(parent)
	if scored {
		s.regroup(n)
	}
}

// under reports whether a node is another one or below it.
func (n *node) under(other *node) bool {
	for ; n != nil; n = n.parent {
		if n == other {
			return true
		}
	}
	return false
}

// moveTo takes a node, with what its jobs hold, to another parent.
func (n *node) moveTo(parent *node) {
	if n.parent == parent {
		return
	}
	for at := n.parent; at != nil; at = at.parent {
		at.used.sub(&n.used)
	}
	n.parent.children--
	n.parent = parent
	parent.children++
	for at := parent; at != nil; at = at.parent {
		at.used.add(&n.used)
	}
}

// share is what the node's jobs hold of the whole, for its weight.
func (s *Scheduler) share(n *node) float64 { return n.used.share(&s.whole) / n.weight }

// before orders the children of a node: those of a higher band first, then those that hold less for their weight.
func before(a, b *node) bool {
	if a.band != b.band {
		return a.band > b.band
	}
	if a.key != b.key {
		return a.key < b.key
	}
	return cmp.Less(a.name, b.name)
}

// hold counts a job that has begun for its queue and all above it.
func (n *node) hold(need *amount) {
	n.own.add(need)
	for at := n; at != nil; at = at.parent {
		at.used.add(need)
	}
}

// letGo takes it back.
func (n *node) letGo(need *amount) {
	n.own.sub(need)
	for at := n; at != nil; at = at.parent {
		at.used.sub(need)
	}
}

// limitKind is a limit of a node.
type limitKind uint8

const (
	noLimit limitKind = iota
	pausedLimit
	runningLimit
	rateLimit
	cpuLimit
	memoryLimit
)

// closedBy returns why nothing of a node may start now, whatever it asks for.
func (n *node) closedBy(now time.Time) limitKind {
	switch {
	case n.paused:
		return pausedLimit
	case n.limits.Running > 0 && n.used.jobs >= int64(n.limits.Running):
		return runningLimit
	case !n.starts.has(now):
		return rateLimit
	}
	return noLimit
}

// refuses returns the limit that some jobs together would break.
func (n *node) refuses(need *amount) limitKind {
	switch l := &n.limits; {
	case l.Running > 0 && n.used.jobs+need.jobs > int64(l.Running):
		return runningLimit
	case l.MilliCPU > 0 && need.cpu > 0 && n.used.cpu+need.cpu > int64(l.MilliCPU):
		return cpuLimit
	case l.MemoryMiB > 0 && need.memory > 0 && n.used.memory+need.memory > int64(l.MemoryMiB):
		return memoryLimit
	}
	return noLimit
}

// limited returns the limit that keeps jobs of a queue from starting now, and the node whose it is.
func (n *node) limited(need *amount, now time.Time) (*node, limitKind) {
	for at := n; at != nil; at = at.parent {
		if l := cmp.Or(at.closedBy(now), at.refuses(need)); l != noLimit {
			return at, l
		}
	}
	return nil, noLimit
}

// bucket limits how often something starts: there is room for the starts of ten seconds, which fills evenly.
type bucket struct {
	perSecond, size, tokens float64 // perSecond 0: no limit
	filled                  time.Time
}

// bucketSeconds is for how many seconds starts may be saved.
const bucketSeconds = 10

func (b *bucket) limit(perMinute int32) {
	perSecond := float64(perMinute) / 60
	if perSecond == b.perSecond {
		return
	}
	b.perSecond, b.size = perSecond, max(perSecond*bucketSeconds, 1)
	b.tokens = b.size
}

func (b *bucket) has(now time.Time) bool {
	if b.perSecond == 0 {
		return true
	}
	if b.filled.Before(now) {
		if !b.filled.IsZero() {
			b.tokens = min(b.tokens+b.perSecond*now.Sub(b.filled).Seconds(), b.size)
		}
		b.filled = now
	}
	return b.tokens >= 1
}

// spend takes one start out.
func (n *node) spend() {
	for at := n; at != nil; at = at.parent {
		if at.starts.perSecond > 0 {
			at.starts.tokens--
		}
	}
}

// next returns when there is room for a start again.
func (b *bucket) next(now time.Time) time.Time {
	return now.Add(time.Duration((1-b.tokens)/b.perSecond*float64(time.Second)) + time.Millisecond) // by then there surely is
}

// regroup puts the jobs of a queue into groups anew: they would choose other workers, or come in another order.
func (s *Scheduler) regroup(n *node) {
	for _, l := range s.lines {
		if l.node == n {
			s.reshape(l)
		}
	}
}

// reshape gives a line the shape that its jobs have by now.
func (s *Scheduler) reshape(l *line) {
	s.leaveGroup(l)
	l.shape = s.shape(l.spec, l.node, l.rest)
	if l.waiting.size > 0 {
		l.urge()
		s.joinGroup(l)
	}
}
