package orchestrator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/store"
)

// The kinds of the records that keep settings. The key of a queue's is its namespace, a slash and its name.
const (
	queueRecord     = "queue"
	namespaceRecord = "namespace"
)

// QueueStatus is a queue and how it stands.
type QueueStatus struct {
	job.Queue
	scheduler.Standing
	Set bool // somebody has set it; else jobs have named it
}

// NamespaceStatus is a namespace and how it stands.
type NamespaceStatus struct {
	job.Namespace
	scheduler.Standing
	Set bool // somebody has set it; else jobs have named it
}

// settings are what operators have set. The scheduler knows them too, and what jobs have named beside.
type settings struct {
	queues     map[queueName]bool
	namespaces map[string]job.Namespace
}

type queueName struct{ namespace, name string }

// Queues returns the queues of a namespace, or of all (empty), in order.
func (o *Orchestrator) Queues(ctx context.Context, namespace string) ([]QueueStatus, error) {
	var list []QueueStatus
	err := o.change(ctx, func(s *state) error {
		list = s.queueStatus(func(q *job.Queue) bool { return namespace == "" || q.Namespace == namespace })
		return nil
	})
	return list, err
}

// SetQueue gives a queue its settings. CodeInvalid when they are wrong, or its parent is not there or below it.
func (o *Orchestrator) SetQueue(ctx context.Context, q job.Queue) (QueueStatus, error) {
	if err := q.Validate(); err != nil {
		return QueueStatus{}, err
	}
	return o.changeQueue(ctx, q.Namespace, q.Name, func(s *state) error { return s.setQueue(q) })
}

// PauseQueue stops the starts of a queue and of those below it, or lets them go on.
func (o *Orchestrator) PauseQueue(ctx context.Context, namespace, name string, paused bool) (QueueStatus, error) {
	return o.changeQueue(ctx, namespace, name, func(s *state) error {
		q := job.DefaultQueueSettings(namespace, name)
		if list := s.queueStatus(is(namespace, name)); len(list) > 0 {
			q = list[0].Queue
		}
		q.Paused = paused
		if err := q.Validate(); err != nil {
			return err
		}
		return s.setQueue(q)
	})
}

// DeleteQueue takes the settings of a queue away; its jobs stay, and have those of a queue that nobody has set. CodeNotFound when it
// was not set, CodePrecondition while it is the parent of others.
func (o *Orchestrator) DeleteQueue(ctx context.Context, namespace, name string) error {
	return o.change(ctx, func(s *state) error {
		if !s.set.queues[queueName{namespace, name}] {
			return job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument,
				"nobody has set queue %q of namespace %q; `hodei queue list` shows those that were", name, namespace)
		}
		children := s.queueStatus(func(q *job.Queue) bool { return q.Namespace == namespace && q.Parent == name })
		if len(children) > 0 {
			return job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
				"queue %q of namespace %q is the parent of %q; give that another parent first", name, namespace, children[0].Name)
		}
		delete(s.set.queues, queueName{namespace, name})
		s.sched.SetQueue(job.DefaultQueueSettings(namespace, name))
		return s.keepSettings(queueRecord, namespace+"/"+name, nil)
	})
}

// Namespaces returns all namespaces, in order.
func (o *Orchestrator) Namespaces(ctx context.Context) ([]NamespaceStatus, error) {
	var list []NamespaceStatus
	err := o.change(ctx, func(s *state) error {
		list = s.namespaceStatus()
		return nil
	})
	return list, err
}

// SetNamespace gives a namespace its settings. CodeInvalid when they are wrong.
func (o *Orchestrator) SetNamespace(ctx context.Context, n job.Namespace) (NamespaceStatus, error) {
	if err := n.Validate(); err != nil {
		return NamespaceStatus{}, err
	}
	var status NamespaceStatus
	err := o.change(ctx, func(s *state) error {
		s.sched.SetNamespace(n)
		s.set.namespaces[n.Name] = n
		list := s.namespaceStatus()
		status = list[slices.IndexFunc(list, func(other NamespaceStatus) bool { return other.Name == n.Name })]
		return s.keepSettings(namespaceRecord, n.Name, n)
	})
	return status, err
}

// DeleteNamespace takes the settings of a namespace away; its queues and jobs stay. CodeNotFound when it was not set.
func (o *Orchestrator) DeleteNamespace(ctx context.Context, name string) error {
	return o.change(ctx, func(s *state) error {
		if _, set := s.set.namespaces[name]; !set {
			return job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument,
				"nobody has set namespace %q; `hodei namespace list` shows those that were", name)
		}
		delete(s.set.namespaces, name)
		s.sched.SetNamespace(job.DefaultNamespaceSettings(name))
		return s.keepSettings(namespaceRecord, name, nil)
	})
}

func (o *Orchestrator) changeQueue(ctx context.Context, namespace, name string, apply func(*state) error) (QueueStatus, error) {
	var status QueueStatus
	err := o.change(ctx, func(s *state) error {
		if err := apply(s); err != nil {
			return err
		}
		status = s.queueStatus(is(namespace, name))[0]
		return nil
	})
	return status, err
}

// change lets the reactor call a function, and waits until what it did is committed.
func (o *Orchestrator) change(ctx context.Context, do func(*state) error) error {
	c := &change{waiter: newWaiter(), do: do}
	if err := o.do(ctx, c, c.waiter); err != nil {
		return err
	}
	return c.err
}

type change struct {
	*waiter
	do  func(*state) error
	err error
}

func (c *change) apply(s *state, _ time.Time) { c.err = c.do(s) }

func is(namespace, name string) func(*job.Queue) bool {
	return func(q *job.Queue) bool { return q.Namespace == namespace && q.Name == name }
}

func (s *state) queueStatus(wanted func(*job.Queue) bool) []QueueStatus {
	var list []QueueStatus
	s.sched.Queues("", func(q job.Queue, standing scheduler.Standing) {
		if wanted(&q) {
			list = append(list, QueueStatus{q, standing, s.set.queues[queueName{q.Namespace, q.Name}]})
		}
	})
	return list
}

func (s *state) namespaceStatus() []NamespaceStatus {
	var list []NamespaceStatus
	s.sched.Namespaces(func(n job.Namespace, standing scheduler.Standing) {
		set, ok := s.set.namespaces[n.Name]
		n.DefaultQueue = set.DefaultQueue // which the scheduler does not know
		list = append(list, NamespaceStatus{n, standing, ok})
	})
	return list
}

func (s *state) setQueue(q job.Queue) error {
	all := []job.Queue{q}
	for _, other := range s.queueStatus(func(other *job.Queue) bool { return other.Namespace == q.Namespace && other.Name != q.Name }) {
		if other.Set {
			all = append(all, other.Queue)
		}
	}
	if err := job.CheckParents(all); err != nil {
		return err
	}
	s.sched.SetQueue(q)
	s.set.queues[queueName{q.Namespace, q.Name}] = true
	return s.keepSettings(queueRecord, q.Namespace+"/"+q.Name, q)
}

// chooseQueue lets a job that names no queue wait in the one that its namespace has for those. Nobody else has the spec yet.
func (s *state) chooseQueue(named string, spec *job.Spec) {
	if name := s.set.namespaces[spec.Namespace].DefaultQueue; named == "" && name != "" {
		spec.Queue = name
	}
}

// keepSettings writes a record of settings; nil deletes it. Jobs may start after it that could not before.
func (s *state) keepSettings(kind, key string, value any) error {
	s.unsettled = true
	record := store.Record{Kind: kind, Key: key}
	if value != nil {
		var err error
		if record.Value, err = json.Marshal(value); err != nil {
			return fmt.Errorf("keeping the settings of %s %s: %w", kind, key, err)
		}
	}
	s.records = append(s.records, record)
	return nil
}

// restoreSettings reads what operators have set. Settings that cannot be read are left out, and logged: a server starts.
func (s *state) restoreSettings(ctx context.Context, db Store) error {
	namespaces, err := db.ListRecords(ctx, namespaceRecord)
	if err != nil {
		return fmt.Errorf("reading the settings of namespaces: %w", err)
	}
	for _, r := range namespaces {
		var n job.Namespace
		if s.readable(r, &n) && n.Validate() == nil {
			s.sched.SetNamespace(n)
			s.set.namespaces[n.Name] = n
		}
	}
	queues, err := db.ListRecords(ctx, queueRecord)
	if err != nil {
		return fmt.Errorf("reading the settings of queues: %w", err)
	}
	var all []job.Queue
	for _, r := range queues {
		var q job.Queue
		if s.readable(r, &q) && q.Validate() == nil {
			all = append(all, q)
			s.set.queues[queueName{q.Namespace, q.Name}] = true
		}
	}
	for range 2 { // a parent may come after its children
		for _, q := range all {
			s.sched.SetQueue(q)
		}
	}
	return nil
}

func (s *state) readable(r store.Record, value any) bool {
	err := json.Unmarshal(r.Value, value)
	if err != nil {
		s.logger.Error("settings cannot be read and are left out; set them again", "kind", r.Kind, "name", r.Key, "error", err)
	}
	return err == nil
}
