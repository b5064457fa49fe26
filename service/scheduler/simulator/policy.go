package simulator

import (
	"cmp"
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// Policy is how a cluster is shared out: what a policy file says. What it does not name has the defaults.
type Policy struct {
	Scheduler  Options           `yaml:"scheduler"`
	Namespaces []NamespacePolicy `yaml:"namespaces"`
	Queues     []QueuePolicy     `yaml:"queues"`
}

// Options are those of the Scheduler; 0 is its default.
type Options struct {
	SampleAbove  int `yaml:"sample_above"`
	Work         int `yaml:"work"`
	Reservations int `yaml:"reservations"`
}

// NamespacePolicy is the settings of a namespace.
type NamespacePolicy struct {
	Name   string `yaml:"name"`
	Weight int32  `yaml:"weight"` // 0: the default
	Limits Limits `yaml:"limits"`
}

// QueuePolicy is the settings of a queue.
type QueuePolicy struct {
	Namespace   string         `yaml:"namespace"` // empty: the default one
	Name        string         `yaml:"name"`
	Parent      string         `yaml:"parent"`
	Weight      int32          `yaml:"weight"` // 0: the default
	Band        int32          `yaml:"band"`
	Limits      Limits         `yaml:"limits"`
	Paused      bool           `yaml:"paused"`
	Ageing      *time.Duration `yaml:"ageing"` // nil: the default; 0: none
	Scoring     Scoring        `yaml:"scoring"`
	Preempts    bool           `yaml:"preempts"`
	Preemptible bool           `yaml:"preemptible"`
}

// Limits bound what runs; 0 is any amount.
type Limits struct {
	Running         int32 `yaml:"running"`
	MilliCPU        int32 `yaml:"milli_cpu"`
	MemoryMiB       int32 `yaml:"memory_mib"`
	StartsPerMinute int32 `yaml:"starts_per_minute"`
}

// Scoring says how workers are chosen; nil is the default.
type Scoring struct {
	Spread   bool   `yaml:"spread"`
	Load     *int32 `yaml:"load"`
	Affinity *int32 `yaml:"affinity"`
	Price    *int32 `yaml:"price"`
}

func (l *Limits) settings() job.Limits {
	return job.Limits{Running: l.Running, MilliCPU: l.MilliCPU, MemoryMiB: l.MemoryMiB, StartsPerMinute: l.StartsPerMinute}
}

func (n *NamespacePolicy) settings() job.Namespace {
	return job.Namespace{Name: n.Name, Weight: cmp.Or(n.Weight, job.DefaultWeight), Limits: n.Limits.settings()}
}

func (q *QueuePolicy) settings() job.Queue {
	s := job.DefaultQueueSettings(q.Namespace, q.Name)
	s.Parent, s.Band, s.Limits, s.Paused = q.Parent, q.Band, q.Limits.settings(), q.Paused
	s.Weight = cmp.Or(q.Weight, s.Weight)
	s.Preempts, s.Preemptible = q.Preempts, q.Preemptible
	if q.Ageing != nil {
		s.Ageing = *q.Ageing
	}
	s.Scoring.Spread = q.Scoring.Spread
	for to, given := range map[*int32]*int32{
		&s.Scoring.Load: q.Scoring.Load, &s.Scoring.Affinity: q.Scoring.Affinity, &s.Scoring.Price: q.Scoring.Price,
	} {
		if given != nil {
			*to = *given
		}
	}
	return s
}

// Complete fills in the namespaces that queues leave out, and returns the first thing that is wrong.
func (p *Policy) Complete() error {
	if o := &p.Scheduler; o.SampleAbove < 0 || o.Work < 0 || o.Reservations < 0 {
		return fmt.Errorf("scheduler: sample_above, work and reservations must not be negative; 0 is the default")
	}
	named := make(map[string]bool)
	for i := range p.Namespaces {
		n := p.Namespaces[i].settings()
		if err := n.Validate(); err != nil {
			return fmt.Errorf("namespaces[%d]: %w", i, err)
		}
		if named[n.Name] {
			return fmt.Errorf("namespaces[%d]: %q was there before; keep one", i, n.Name)
		}
		named[n.Name] = true
	}
	queues := make(map[string][]job.Queue)
	for i := range p.Queues {
		p.Queues[i].Namespace = cmp.Or(p.Queues[i].Namespace, job.DefaultNamespace)
		q := p.Queues[i].settings()
		if err := q.Validate(); err != nil {
			return fmt.Errorf("queues[%d]: %w", i, err)
		}
		for _, other := range queues[q.Namespace] {
			if other.Name == q.Name {
				return fmt.Errorf("queues[%d]: %q of namespace %q was there before; keep one", i, q.Name, q.Namespace)
			}
		}
		queues[q.Namespace] = append(queues[q.Namespace], q)
	}
	for i := range p.Queues { // in the order of the file, so that the same file has the same error
		if err := job.CheckParents(queues[p.Queues[i].Namespace]); err != nil {
			return fmt.Errorf("queues of namespace %q: %w", p.Queues[i].Namespace, err)
		}
	}
	return nil
}

// NewScheduler makes a Scheduler that follows the policy, without workers and jobs. The policy must be complete.
func (p *Policy) NewScheduler() *scheduler.Scheduler {
	o := &p.Scheduler
	s := scheduler.New(scheduler.Options{SampleAbove: o.SampleAbove, Work: o.Work, Reservations: o.Reservations})
	for i := range p.Namespaces {
		s.SetNamespace(p.Namespaces[i].settings())
	}
	for range 2 { // a queue finds its parent the second time, wherever in the file that is
		for i := range p.Queues {
			s.SetQueue(p.Queues[i].settings())
		}
	}
	return s
}

// weightOf returns the weight of a namespace.
func (p *Policy) weightOf(namespace string) float64 {
	for i := range p.Namespaces {
		if p.Namespaces[i].Name == namespace {
			return float64(p.Namespaces[i].settings().Weight)
		}
	}
	return job.DefaultWeight
}
