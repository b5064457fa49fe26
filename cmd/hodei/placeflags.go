package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// placeFlags say where a job may run, and beside which others.
type placeFlags struct {
	constraints, likes, tolerations, requires []string
	spread, apart, concurrency                string
	gpus                                      int32
}

func (f *placeFlags) add(flags *pflag.FlagSet) {
	flags.Int32Var(&f.gpus, "gpu", 0, "GPUs to reserve, of those that the worker's agent was given as --extra gpu=N")
	flags.StringArrayVar(&f.constraints, "constraint", nil,
		"condition on the worker's labels: os=linux, zone=a|b, arch!=arm64, gpu, !gpu, mem>16, mem<64, \"cuda~>=12.2, <13\"; may be repeated")
	flags.StringArrayVar(&f.likes, "prefer", nil,
		"workers that are better, LABEL=VALUE[:WEIGHT] with a weight from -100 (worse) to 100 (default 50); may be repeated")
	flags.StringVar(&f.spread, "spread", "", "worker's label over whose values jobs of this name are spread")
	flags.StringVar(&f.apart, "apart", "", "worker's label of which no two jobs of this name have the same value")
	flags.StringArrayVar(&f.tolerations, "tolerate", nil, "taint of workers that does not keep the job away; may be repeated")
	flags.StringArrayVar(&f.requires, "require", nil, "what the worker's agent must be able to do: memory-limit, terminal; may be repeated")
	flags.StringVar(&f.concurrency, "concurrency", "",
		"key of which one job, or LIMIT, runs at a time, KEY[:LIMIT][:queue|latest|cancel-running]")
}

// apply puts what was given into a spec.
func (f *placeFlags) apply(spec *hodeiv1.JobSpec) error {
	for _, text := range f.constraints {
		c, err := hodei.ParseConstraint(text)
		if err != nil {
			return usageError{fmt.Errorf("--constraint: %w", err)}
		}
		spec.Constraints = append(spec.Constraints, c)
	}
	for _, text := range f.likes {
		a, err := affinity(text)
		if err != nil {
			return usageError{fmt.Errorf("--prefer: %w", err)}
		}
		spec.Affinities = append(spec.Affinities, a)
	}
	spec.Spread, spec.Apart, spec.Tolerations, spec.Requires = f.spread, f.apart, f.tolerations, f.requires
	if f.gpus != 0 {
		spec.Resources.Extras = map[string]int32{"gpu": f.gpus}
	}
	var err error
	if f.concurrency != "" {
		spec.Concurrency, err = concurrency(f.concurrency)
	}
	return err
}

// defaultLiking is the weight of an affinity that has none.
const defaultLiking = 50

// affinity reads a constraint with a weight behind it.
func affinity(text string) (*hodeiv1.Affinity, error) {
	a := &hodeiv1.Affinity{Weight: defaultLiking}
	if at := strings.LastIndexByte(text, ':'); at >= 0 {
		if weight, err := strconv.ParseInt(text[at+1:], 10, 32); err == nil {
			a.Weight, text = int32(weight), text[:at]
		}
	}
	var err error
	a.Constraint, err = hodei.ParseConstraint(text)
	return a, err
}

// concurrency reads a key with a limit and a policy behind it.
func concurrency(text string) (*hodeiv1.Concurrency, error) {
	key, rest, more := strings.Cut(text, ":")
	c := &hodeiv1.Concurrency{Key: key}
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ":")
		name := "CONCURRENCY_POLICY_" + strings.ToUpper(strings.ReplaceAll(part, "-", "_"))
		policy, known := hodeiv1.ConcurrencyPolicy_value[name]
		limit, err := strconv.ParseInt(part, 10, 32)
		switch {
		case known && policy != 0 && c.Policy == 0:
			c.Policy = hodeiv1.ConcurrencyPolicy(policy)
		case err == nil && limit > 0 && c.Limit == 0 && c.Policy == 0:
			c.Limit = int32(limit)
		default:
			return nil, usageError{fmt.Errorf("--concurrency %q: %q is not a limit, and not queue, latest or cancel-running; "+
				"a key with ':' in it can be given in a file", text, part)}
		}
	}
	if key == "" {
		return nil, usageError{fmt.Errorf("--concurrency %q has no key", text)}
	}
	return c, nil
}
