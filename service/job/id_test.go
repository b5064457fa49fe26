package job_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

func drawID(t *rapid.T, label string) job.ID {
	return job.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
}

// The text of an id is that of a ULID, as another program reads and writes it.
func TestIDIsAULID(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := drawID(t, "id")
		text := id.String()
		if want := "job_" + strings.ToLower(ulid.ULID(id).String()); text != want {
			t.Fatalf("the text is %s, want %s", text, want)
		}
		back, err := job.ParseID(text)
		if err != nil || back != id {
			t.Fatalf("%s was read as %v, %v", text, back, err)
		}
		if got, want := id.Time().UnixMilli(), int64(ulid.ULID(id).Time()); got != want {
			t.Fatalf("the time is %d, want %d", got, want)
		}
	})
}

func TestIDsAreOrderedByTimeThenChance(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawID(t, "a"), drawID(t, "b")
		if got, want := a.Compare(b), bytes.Compare(a[:], b[:]); got != want {
			t.Fatalf("%v and %v compare as %d, want %d", a, b, got, want)
		}
	})
	at := time.UnixMilli(1_700_000_000_123)
	first, second, third := job.NewID(at, 1, 9), job.NewID(at, 2, 0), job.NewID(at.Add(time.Millisecond), 0, 0)
	if first.Compare(second) >= 0 || second.Compare(third) >= 0 || !first.Time().Equal(at) {
		t.Errorf("%v, %v, %v of %v", first, second, third, first.Time())
	}
}

func TestWhatIsNoIDIsNoJob(t *testing.T) {
	t.Parallel()
	valid := job.NewID(time.Unix(1, 0), 2, 3).String()
	for _, text := range []string{
		"", "job_", "job_1", "job_nope", valid[:29], valid + "0", "run_" + valid[4:], strings.ToUpper(valid),
		"job_8" + valid[5:], valid[:29] + "u", valid[:29] + "\x00",
	} {
		if id, err := job.ParseID(text); job.CodeOf(err) != job.CodeNotFound || !strings.Contains(err.Error(), `there is no job`) {
			t.Errorf("%q was read as %v, %v", text, id, err)
		}
	}
}
