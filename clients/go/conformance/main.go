// Conformance runs the table of cases that every client must pass with the Go client; see clients/conformance/README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

// patience bounds one case: it is a limit for hanging, not a measure.
const patience = 3 * time.Minute

type settings struct {
	Cases     string         `json:"cases"`
	Client    string         `json:"client"`
	Control   string         `json:"control"`
	Variables map[string]any `json:"variables"`
}

type testCase struct {
	Name  string            `json:"name"`
	Skip  map[string]string `json:"skip"`
	Steps []step            `json:"steps"`
}

// step is one step of a case; what it has depends on what it does.
type step struct {
	Do          string            `json:"do"`
	As          string            `json:"as"`
	Client      string            `json:"client"`
	Expect      map[string]any    `json:"expect"`
	Error       map[string]any    `json:"error"`
	Meanwhile   []step            `json:"meanwhile"`
	AfterMS     int               `json:"after_ms"`
	With        map[string]string `json:"with"`
	Environment map[string]string `json:"environment"`
	Command     []string          `json:"command"`
	Script      string            `json:"script"`
	Steps       []namedScript     `json:"steps"`
	Options     jobOptions        `json:"options"`
	Job         string            `json:"job"`
	ID          string            `json:"id"`
	TimeoutMS   int               `json:"timeout_ms"`
	Step        string            `json:"step"`
	Stream      string            `json:"stream"`
	Attempt     int32             `json:"attempt"`
	Tail        int32             `json:"tail"`
	Take        int               `json:"take"`
	Numbered    int               `json:"numbered"`
	Follow      bool              `json:"follow"`
	Force       bool              `json:"force"`
	Reason      string            `json:"reason"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	States      []string          `json:"states"`
	PageSize    int32             `json:"page_size"`
	Limit       int               `json:"limit"`
	Count       int               `json:"count"`
	Action      string            `json:"action"`
}

type namedScript struct {
	Name   string `json:"name"`
	Script string `json:"script"`
}

type jobOptions struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Env         map[string]string `json:"env"`
	Queue       string            `json:"queue"`
	Namespace   string            `json:"namespace"`
	TimeoutMS   int               `json:"timeout_ms"`
	MaxAttempts int32             `json:"max_attempts"`
	BackoffMS   int               `json:"backoff_ms"`
	CPUs        float64           `json:"cpus"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var s settings
	if err := readJSON(os.Getenv("HODEI_CONFORMANCE"), &s); err != nil {
		return err
	}
	var table struct {
		Cases []json.RawMessage `json:"cases"`
	}
	if err := readJSON(s.Cases, &table); err != nil {
		return err
	}
	client, err := hodei.New(context.Background())
	if err != nil {
		return err
	}
	defer client.Close()
	out := json.NewEncoder(os.Stdout)
	for _, text := range table.Cases {
		var c testCase
		if err := json.Unmarshal(text, &c); err != nil {
			return fmt.Errorf("the case %s: %w", text, err)
		}
		report := map[string]any{"case": c.Name}
		if why := c.Skip[s.Client]; why != "" {
			report["skipped"] = why
		} else if err := newPlayer(&s, client).play(c.Steps); err != nil {
			report["ok"], report["message"] = false, err.Error()
		} else {
			report["ok"] = true
		}
		if err := out.Encode(report); err != nil {
			return err
		}
	}
	return nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	return nil
}

// player runs the steps of one case.
type player struct {
	settings *settings
	mu       sync.Mutex // meanwhile, other steps run
	clients  map[string]*hodei.Client
	values   map[string]any // variables, and results by name
}

func newPlayer(s *settings, client *hodei.Client) *player {
	p := &player{settings: s, clients: map[string]*hodei.Client{"": client}, values: maps.Clone(s.Variables)}
	p.values["unique"] = "u" + strings.ToLower(ulid.Make().String())
	return p
}

func (p *player) play(steps []step) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, s := range steps {
		if err := p.step(ctx, s); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, s.Do, err)
		}
	}
	return nil
}

// step does a step and looks at what came of it.
func (p *player) step(ctx context.Context, s step) error {
	if err := p.fill(&s); err != nil {
		return err
	}
	var begin sync.Once
	meanwhile := make(chan error, 1)
	started := func() {
		begin.Do(func() {
			go func() {
				time.Sleep(time.Duration(s.AfterMS) * time.Millisecond)
				var failed error
				for i, m := range s.Meanwhile {
					if err := p.step(ctx, m); err != nil && failed == nil {
						failed = fmt.Errorf("meanwhile, step %d (%s): %w", i+1, m.Do, err)
					}
				}
				meanwhile <- failed
			}()
		})
	}
	if s.AfterMS > 0 {
		started()
	}
	do, ok := actions[s.Do]
	if !ok {
		return fmt.Errorf("this driver does not know it")
	}
	result, err := do(p, ctx, &s, started)
	started()
	if failed := <-meanwhile; failed != nil {
		return failed
	}
	if s.Error != nil {
		return compareError(s.Error, err)
	}
	if err != nil {
		return err
	}
	if s.As != "" {
		p.mu.Lock()
		p.values[s.As] = result
		p.mu.Unlock()
	}
	return compare(s.Expect, result)
}

var placeholder = regexp.MustCompile(`\$\{([a-z_]+)(?:\.([a-z_]+))?\}`)

// fill replaces ${NAME} and ${NAME.FIELD} in all texts of a step, but for those of the steps inside of it.
func (p *player) fill(s *step) error {
	inside := s.Meanwhile
	s.Meanwhile = nil
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text := placeholder.ReplaceAllStringFunc(string(data), func(found string) string {
		groups := placeholder.FindStringSubmatch(found)
		value, ok := p.values[groups[1]]
		if groups[2] != "" {
			if fields, isMap := value.(map[string]any); isMap {
				value, ok = fields[groups[2]]
			}
		}
		if !ok {
			return found // ${index}, say
		}
		quoted, err := json.Marshal(fmt.Sprint(value))
		if err != nil {
			return found
		}
		return strings.Trim(string(quoted), `"`)
	})
	filled := step{}
	if err := json.Unmarshal([]byte(text), &filled); err != nil {
		return err
	}
	*s = filled
	s.Meanwhile = inside
	return nil
}
