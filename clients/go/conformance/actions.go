package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// action does a step. It calls started when something has come of it that shows that it runs.
type action func(p *player, ctx context.Context, s *step, started func()) (map[string]any, error)

var actions = map[string]action{
	"client": makeClient, "close": closeClient, "submit": submit, "run": runJob, "wait": wait, "get": get, "cancel": cancelJob,
	"list": list, "map": mapJobs, "logs": logs, "chunks": chunks, "watch": watch, "explain": explain, "control": control,
}

func (p *player) client(s *step) *hodei.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clients[s.Client]
}

// id is that of the job that the step names, or what it says itself.
func (p *player) id(s *step) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if job, ok := p.values[s.Job].(map[string]any); ok {
		return fmt.Sprint(job["id"])
	}
	return s.Job
}

var withOptions = map[string]func(string) hodei.Option{
	"url": hodei.WithURL, "ca": hodei.WithCA, "token": hodei.WithToken, "context": hodei.WithContext, "namespace": hodei.WithNamespace,
}

func makeClient(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	if s.Environment != nil {
		undo, err := replaceEnvironment(s.Environment)
		if err != nil {
			return nil, err
		}
		defer undo()
	}
	var options []hodei.Option
	for name, value := range s.With {
		options = append(options, withOptions[name](value))
	}
	c, err := hodei.New(context.WithoutCancel(ctx), options...)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[s.As] = c
	return map[string]any{}, nil
}

// replaceEnvironment makes these the only variables that a client looks at, and returns what undoes it.
func replaceEnvironment(variables map[string]string) (undo func(), err error) {
	wanted := maps.Clone(variables)
	before := make(map[string]string)
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if _, given := wanted[name]; given || strings.HasPrefix(name, "HODEI_") {
			before[name] = value
			wanted[name] = variables[name]
		}
	}
	set := func(all map[string]string) (err error) {
		for name, value := range all {
			err = errors.Join(err, os.Setenv(name, value))
		}
		return err
	}
	return func() { _ = set(before) }, set(wanted)
}

func closeClient(p *player, _ context.Context, s *step, _ func()) (map[string]any, error) {
	p.client(s).Close()
	return nil, nil
}

func specOf(s *step, command []string) *hodeiv1.JobSpec {
	o := &s.Options
	spec := &hodeiv1.JobSpec{
		Name: o.Name, Labels: o.Labels, Env: o.Env, Queue: o.Queue, Namespace: o.Namespace, MaxAttempts: o.MaxAttempts,
	}
	if o.TimeoutMS > 0 {
		spec.Timeout = durationpb.New(time.Duration(o.TimeoutMS) * time.Millisecond)
	}
	if o.BackoffMS > 0 {
		spec.Backoff = &hodeiv1.Backoff{Initial: durationpb.New(time.Duration(o.BackoffMS) * time.Millisecond)}
	}
	if o.CPUs > 0 {
		spec.Resources = &hodeiv1.Resources{MilliCpu: int32(o.CPUs * 1000)}
	}
	script := func(name, text string) *hodeiv1.Step {
		return &hodeiv1.Step{Name: name, Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: text}}}
	}
	switch {
	case len(s.Steps) > 0:
		for _, named := range s.Steps {
			spec.Steps = append(spec.Steps, script(named.Name, named.Script))
		}
	case s.Script != "":
		spec.Steps = []*hodeiv1.Step{script("", s.Script)}
	default:
		spec.Steps = []*hodeiv1.Step{{Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: command}}}}
	}
	return spec
}

func shown(job *hodeiv1.Job) map[string]any {
	return map[string]any{
		"id": job.GetId(), "state": strings.TrimPrefix(job.GetState().String(), "JOB_STATE_"), "name": job.GetSpec().GetName(),
		"exit_code": job.GetCause().GetExitCode(), "signal": job.GetCause().GetSignal(), "cause": job.GetCause().GetMessage(),
		"attempt": job.GetAttempt(),
	}
}

func submit(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	job, err := p.client(s).Submit(ctx, specOf(s, s.Command))
	return shown(job), err
}

func runJob(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	job, err := p.client(s).Run(ctx, specOf(s, s.Command))
	return shown(job), err
}

func wait(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	if s.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	job, err := p.client(s).Wait(ctx, p.id(s))
	return shown(job), err
}

func get(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	job, err := p.client(s).Get(ctx, s.ID)
	return shown(job), err
}

func cancelJob(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	job, err := p.client(s).Cancel(ctx, p.id(s), hodei.CancelOptions{Step: s.Step, Force: s.Force, Reason: s.Reason})
	return shown(job), err
}

func list(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	filter := &hodeiv1.JobFilter{Name: s.Name, Labels: s.Labels}
	for _, state := range s.States {
		filter.States = append(filter.States, hodeiv1.JobState(hodeiv1.JobState_value["JOB_STATE_"+state]))
	}
	var ids []string
	for job, err := range p.client(s).List(ctx, filter, s.PageSize) {
		if err != nil {
			return nil, err
		}
		if ids = append(ids, job.GetId()); len(ids) == s.Limit {
			break
		}
	}
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	unique := len(slices.Compact(slices.Clone(sorted))) == len(ids)
	slices.Reverse(sorted)
	return map[string]any{"count": len(ids), "unique": unique, "newest_first": slices.Equal(ids, sorted)}, nil
}

func mapJobs(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	specs := make([]*hodeiv1.JobSpec, s.Count)
	for i := range specs {
		command := slices.Clone(s.Command)
		for n := range command {
			command[n] = strings.ReplaceAll(command[n], "${index}", strconv.Itoa(i))
		}
		specs[i] = specOf(s, command)
	}
	count, succeeded, ordered := 0, 0, true
	for job, err := range p.client(s).Map(ctx, specs) {
		if err != nil {
			return nil, err
		}
		want := specs[count].GetSteps()[0].GetCommand().GetArgv()
		ordered = ordered && slices.Equal(job.GetSpec().GetSteps()[0].GetCommand().GetArgv(), want)
		count++
		if job.GetState() == hodeiv1.JobState_JOB_STATE_SUCCEEDED {
			succeeded++
		}
	}
	return map[string]any{"count": count, "succeeded": succeeded, "ordered": ordered}, nil
}

func logOptions(s *step) hodei.LogOptions {
	stream := hodeiv1.LogStream_LOG_STREAM_UNSPECIFIED
	if s.Stream != "" {
		stream = hodeiv1.LogStream(hodeiv1.LogStream_value["LOG_STREAM_"+strings.ToUpper(s.Stream)])
	}
	return hodei.LogOptions{Attempt: s.Attempt, Follow: s.Follow, Step: s.Step, Stream: stream, Tail: s.Tail}
}

func logs(p *player, ctx context.Context, s *step, started func()) (map[string]any, error) {
	lines, n, numbered := []any{}, 0, true
	for line, err := range p.client(s).Logs(ctx, p.id(s), logOptions(s)) {
		if err != nil {
			return nil, err
		}
		started()
		n++
		if s.Numbered > 0 {
			numbered = numbered && line.Text() == strconv.Itoa(n)
			continue
		}
		if lines = append(lines, line.Text()); len(lines) == s.Take {
			break
		}
	}
	if s.Numbered > 0 {
		return map[string]any{"numbered": numbered && n == s.Numbered, "count": n}, nil
	}
	return map[string]any{"lines": lines}, nil
}

func chunks(p *player, ctx context.Context, s *step, started func()) (map[string]any, error) {
	var data []byte
	_, err := p.client(s).ReadLogs(ctx, p.id(s), logOptions(s), func(chunk *hodeiv1.LogChunk) error {
		started()
		data = append(data, chunk.GetData()...)
		return nil
	})
	return map[string]any{"base64": base64.StdEncoding.EncodeToString(data)}, err
}

func watch(p *player, ctx context.Context, s *step, started func()) (map[string]any, error) {
	states := []any{}
	for job, err := range p.client(s).Watch(ctx, &hodeiv1.JobFilter{Namespace: "*", Ids: []string{p.id(s)}}) {
		if err != nil {
			return nil, err
		}
		started()
		state := shown(job)["state"]
		if len(states) == 0 || states[len(states)-1] != state {
			states = append(states, state)
		}
		if hodei.Terminal(job.GetState()) {
			break
		}
	}
	return map[string]any{"states": states}, nil
}

func explain(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	res, err := p.client(s).Explain(ctx, p.id(s))
	return map[string]any{"text": res.GetText()}, err
}

func control(p *player, ctx context.Context, s *step, _ func()) (map[string]any, error) {
	method := map[string]string{"restart": http.MethodPost}[s.Action]
	request, err := http.NewRequestWithContext(ctx, method, p.settings.Control+"/"+s.Action, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // read below
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered with %s %s: %w", s.Action, res.Status, text, err)
	}
	return map[string]any{"connections": string(text)}, nil
}
