package mask

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Secret is a value that nobody may see, and the name by which its finds are counted.
type Secret struct {
	Name  string
	Value []byte
}

// Set is the secrets of a job. Its methods may be called from several goroutines at once.
type Set struct {
	matcher atomic.Pointer[matcher] // nil: nothing to look for

	mu      sync.Mutex
	needles []needle
	names   []string
	counts  []uint64 // by the same index
}

// Add has secrets looked for in all that comes from now on, and in what streams have held back. It returns a warning for each that
// is not looked for, or not in every form, because that would be shorter than MinLength.
func (s *Set) Add(secrets ...Secret) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var warnings []string
	for _, secret := range secrets {
		index := slices.Index(s.names, secret.Name)
		if index < 0 {
			index = len(s.names)
			s.names, s.counts = append(s.names, secret.Name), append(s.counts, 0)
		}
		short, used := false, false
		for _, text := range forms(secret.Value) {
			if len(text) < MinLength {
				short = short || len(text) > 0
				continue
			}
			used = true
			s.needles = append(s.needles, needle{text, []int{index}})
		}
		switch {
		case !used && len(secret.Value) > 0:
			warnings = append(warnings, fmt.Sprintf("the secret %s is shorter than %d bytes and is not masked; use a longer one", secret.Name, MinLength))
		case short:
			warnings = append(warnings, fmt.Sprintf("the secret %s has lines or forms shorter than %d bytes, which are not masked where they stand alone",
				secret.Name, MinLength))
		}
	}
	m := newMatcher(s.needles)
	if m != nil {
		s.needles = slices.Clone(m.needles) // each once
	}
	s.matcher.Store(m)
	return warnings
}

// Counts says how often each secret was replaced, by name. One that was never replaced has zero.
func (s *Set) Counts() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]uint64, len(s.names))
	for i, name := range s.names {
		counts[name] = s.counts[i]
	}
	return counts
}

// count counts replacements of secrets.
func (s *Set) count(secrets []int) {
	if len(secrets) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		s.counts[secret]++
	}
}

// Mask returns a text with its secrets replaced.
func (s *Set) Mask(text []byte) []byte {
	stream := s.Stream()
	masked := slices.Clone(stream.Write(text))
	return append(masked, stream.End()...)
}

// Stream returns a stream in which the secrets of the set are replaced.
func (s *Set) Stream() *Stream { return &Stream{set: s} }
