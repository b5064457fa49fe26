package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

const (
	// formerBoots is how many former lives of an agent are known; an agent that was cloned takes turns with its double.
	formerBoots = 16
	// suspicion is how long a refused agent is remembered. One that is alive tries again within seconds.
	suspicion = time.Minute
)

// Sighting is an agent that wants to begin a session.
type Sighting struct {
	Worker     job.WorkerID
	Generation int    // of the certificate of its connection
	Root       string // the pin above that
	Boot       string // names the life of the agent's program
	Dial       uint64 // counts the connections of that life
}

// SightingOf reads from the chain of an agent's certificate, from the certificate to the root, what it says.
func SightingOf(worker job.WorkerID, chain []*x509.Certificate, boot string, dial uint64) Sighting {
	return Sighting{worker, GenerationOf(chain[0]), pinOf(chain[len(chain)-1]), boot, dial}
}

// boot stands for the name of a life, which may have any length.
type boot [sha256.Size]byte

// sightings is what is remembered of a worker's sessions while the server runs.
type sightings struct {
	mu       sync.Mutex // held also while the worker's record changes
	current  boot       // of the newest session
	dial     uint64
	former   []boot           // whose place another one has taken, the newest last
	suspects map[boot]refusal // lives that were refused
}

// refusal is when an agent was refused, and by which number it had dialled.
type refusal struct {
	dial uint64
	at   time.Time
}

func (e *Enrolment) sightings(id job.WorkerID) *sightings {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.workers[id]
	if s == nil {
		s = new(sightings)
		e.workers[id] = s
	}
	return s
}

// Seen is called before a session of an agent begins, and Opened after it has. Seen refuses one that shows that two agents have the same
// identity: it comes with a certificate that is older than one which was used, or it is a life of the agent that has ended, as a
// newer one has taken its place, because a program that is started anew never has its former name.
//
// What an agent said can be held up on its way while the agent is started anew. So the first time it is only told to connect again. An
// agent that does is alive, and then Cloned is told. The error is a *job.Error, or the store's.
func (e *Enrolment) Seen(ctx context.Context, sight Sighting) (EnrolledWorker, error) {
	w, why, err := e.examine(ctx, sight)
	if why == "" {
		return w, err
	}
	e.cloned(ctx, sight.Worker, why)
	return w, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied,
		"two agents have the identity of worker %s: %s; if the state folder was copied or restored, enrol each of them with a token of its own",
		sight.Worker, why)
}

// examine returns how it shows that the identity was cloned; empty: it does not.
func (e *Enrolment) examine(ctx context.Context, sight Sighting) (EnrolledWorker, string, error) {
	s := e.sightings(sight.Worker)
	s.mu.Lock()
	defer s.mu.Unlock()
	w, err := e.Worker(ctx, sight.Worker)
	if job.CodeOf(err) == job.CodeDenied && sight.Generation == 0 {
		w, err = e.read(ctx, formerRecord, sight.Worker)
	}
	if err != nil {
		return w, "", err
	}
	name := boot(sha256.Sum256([]byte(sight.Boot)))
	again := job.Errorf(job.CodePrecondition, job.ReasonUnavailable, "worker %s has connected again", sight.Worker)
	var why string
	switch {
	case name == s.current && sight.Dial < s.dial:
		return w, "", again
	case sight.Generation < w.Used:
		why = fmt.Sprintf("one connects with certificate %d after certificate %d was used", sight.Generation, w.Used)
	case slices.Contains(s.former, name):
		why = "one connects again after another one has taken its place"
	default:
		return w, "", e.noteUse(ctx, &w, sight)
	}
	now := e.tokens.now()
	before, known := s.suspects[name]
	if known && sight.Dial > before.dial && now.Sub(before.at) < suspicion {
		return w, why, nil
	}
	if s.suspects == nil || len(s.suspects) >= formerBoots {
		s.suspects = make(map[boot]refusal)
	}
	s.suspects[name] = refusal{max(before.dial, sight.Dial), now}
	return w, "", again
}

// noteUse stores that a certificate was used for the first time, or instead of a newer one that never was. The counts are not less than
// what the agent has even if the store was restored.
func (e *Enrolment) noteUse(ctx context.Context, w *EnrolledWorker, sight Sighting) error {
	if w.Used == sight.Generation && w.Root == sight.Root {
		return nil
	}
	w.Used, w.Root, w.Generation = sight.Generation, sight.Root, max(w.Generation, sight.Generation)
	return e.write(ctx, sight.Worker, w)
}

// Opened notes that the session of an agent that was seen has begun, and reports whether the agent should renew its certificate
// at once: because another root signs now, or because it is of a version that did not count.
func (e *Enrolment) Opened(sight Sighting) (renew bool) {
	s := e.sightings(sight.Worker)
	s.mu.Lock()
	defer s.mu.Unlock()
	name := boot(sha256.Sum256([]byte(sight.Boot)))
	delete(s.suspects, name)
	if sight.Dial >= s.dial { // else a newer one has overtaken it
		if name != s.current {
			if s.current != (boot{}) {
				s.former = append(s.former[max(len(s.former)-formerBoots+1, 0):], s.current)
			}
			s.current = name
		}
		s.dial = sight.Dial
	}
	return sight.Generation == 0 || sight.Root != e.authority.Pin()
}
