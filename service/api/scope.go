package api

import (
	"cmp"
	"context"
	"slices"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/job"
)

// within returns the namespace that a request names, "default" when it names none, if the caller holds the permission of the call there.
// Whether the namespace is there makes no difference.
func within(ctx context.Context, namespace string) (string, error) {
	c := callOf(ctx)
	namespace = cmp.Or(namespace, job.DefaultNamespace)
	c.asked = true
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.within, namespace) {
		return namespace, nil
	}
	if !c.gate.access.Policy().Allows(&c.who, c.rule.permission, namespace) {
		return "", c.lacks(namespace)
	}
	c.within = append(c.within, namespace)
	if len(c.within) == 1 {
		c.entry.Namespace = namespace
	} else {
		c.entry.Namespace = "" // of several
	}
	return namespace, nil
}

// visible returns a job if the caller holds the permission of the call in its namespace. Else the answer is that of a job that is not
// there, so that nobody learns what others have.
func visible(ctx context.Context, j job.Job, err error) (job.Job, error) {
	c := callOf(ctx)
	c.asked = true
	if err != nil {
		return job.Job{}, err
	}
	if _, err := within(ctx, j.Spec.Namespace); err != nil {
		c.denied = "the job is of a namespace in which the caller lacks " + c.rule.permission
		c.entry.Namespace, c.entry.Targets = j.Spec.Namespace, []string{j.ID.String()}
		return job.Job{}, job.NotFound(j.ID.String())
	}
	return j, nil
}

// reach returns the namespaces of which a request wants everything: the one that it names, "default" when it names none, or with "*" all
// that the caller may see; then nil means that there is no limit.
func reach(ctx context.Context, namespace string) ([]string, error) {
	if namespace != access.Everywhere {
		name, err := within(ctx, namespace)
		return []string{name}, err
	}
	c := callOf(ctx)
	c.asked = true
	c.mu.Lock() // before it is asked, so that a change of the policy is not missed
	defer c.mu.Unlock()
	r := c.gate.access.Policy().Reach(&c.who, c.rule.permission)
	if r.Everywhere {
		c.within = []string{access.Everywhere}
		return nil, nil
	}
	c.within = r.Namespaces
	if len(r.Namespaces) == 0 {
		return nil, c.lacks("")
	}
	return r.Namespaces, nil
}

// holds reports whether the caller holds a permission in all namespaces, beside that of the call.
func holds(ctx context.Context, permission string) bool {
	c := callOf(ctx)
	return c.gate.access.Policy().Allows(&c.who, permission, access.Everywhere)
}
