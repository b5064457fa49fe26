package chain

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestAnUntouchedTrailHasNoProblem(t *testing.T) {
	t.Parallel()
	for _, first := range []int{1, 2, 150, 900} {
		tr := newTrail(first, 1000, 100)
		for name, r := range map[string]Report{
			"interleaved": verify(t, file(tr.lines...), nil),
			"apart":       verify(t, file(tr.records()...), file(tr.checkpoints...)),
			"both":        verify(t, file(tr.lines...), file(tr.checkpoints...)),
			"two keys":    verify(t, file(tr.lines...), nil, publicOf(keyOf("other")), serverPub),
			"torn apart":  verify(t, file(tr.lines...), append(file(tr.checkpoints[0], tr.checkpoints[1][:70]), tr.checkpoints[2][:70]...)),
			"older apart": verify(t, file(tr.lines...), file(newTrail(1, first+20, 10).checkpoints...)),
		} {
			last := uint64(first + 999)
			if !r.OK() || r.First != uint64(first) || r.Last != last || r.Records != 1000 || r.Vouched != last || r.Checkpoints < len64(tr.checkpoints) {
				t.Errorf("%s from %d: %+v", name, first, r)
			}
			if torn := name == "torn apart"; torn != (len(r.Warnings) == 2) || !torn && len(r.Warnings) != 0 {
				t.Errorf("%s from %d: the warnings are %q", name, first, r.Warnings)
			}
		}
	}
	empty := Checkpoint{First: 1, Time: start}.Sign(serverKey)
	if r := verify(t, file(empty), nil); !r.OK() || r.Records != 0 || r.Checkpoints != 1 || r.Vouched != 0 {
		t.Errorf("an empty trail: %+v", r)
	}
}

func len64(lines [][]byte) uint64 { return uint64(len(lines)) }

func TestProblemsAreSaidPlainly(t *testing.T) {
	t.Parallel()
	tr := newTrail(1, 1000, 100)
	other := newTrail(1, 30, 10)
	edited := tr.records()
	edited[16] = bytes.Replace(edited[16], []byte("ada"), []byte("bob"), 1)
	rechained := slices.Clone(edited)
	rechain(t, rechained, 16)
	spaced := tr.records()
	spaced[4] = append(slices.Clone(spaced[4]), ' ')
	forged := Checkpoint{Seq: 1000, First: 1, Time: start, Hash: Hash{1}}.Sign(keyOf("mallory"))
	swapped := tr.records()
	swapped[4], swapped[5] = swapped[5], swapped[4]
	records, checkpoints := tr.records(), file(tr.checkpoints...)
	set := file(append(slices.Clone(tr.checkpoints), other.checkpoints...)...)
	for name, c := range map[string]struct {
		export, checkpoints []byte
		want                Problem
	}{
		"edited":            {file(edited...), checkpoints, Problem{InRecords, 18, 17, "record 17 was changed: record 18 follows another one"}},
		"chained anew":      {file(rechained...), checkpoints, Problem{InCheckpoints, 1, 100, "record 100 was changed, or one before it: the checkpoint of 2026-03-01T10:01:40Z vouches for another one"}},
		"not written so":    {file(spaced...), checkpoints, Problem{InRecords, 5, 0, "line 5 is not a record: it is not written exactly as the server writes it"}},
		"one dropped":       {file(slices.Delete(tr.records(), 19, 20)...), checkpoints, Problem{InRecords, 20, 20, "record 20 is missing"}},
		"three dropped":     {file(slices.Delete(tr.records(), 19, 22)...), checkpoints, Problem{InRecords, 20, 20, "records 20-22 are missing"}},
		"swapped":           {file(swapped...), checkpoints, Problem{InRecords, 6, 5, "record 5 is out of order: it stands behind record 6"}},
		"twice":             {file(slices.Insert(tr.records(), 5, records[4])...), checkpoints, Problem{InRecords, 6, 5, "record 5 is out of order: it stands behind record 5"}},
		"blank line":        {file(slices.Insert(tr.records(), 5, nil)...), checkpoints, Problem{InRecords, 6, 0, "line 6 is not a record: it is blank"}},
		"tail cut":          {file(records[:990]...), checkpoints, Problem{InRecords, 991, 991, "the tail is cut: the checkpoint of 2026-03-01T10:16:40Z says that there were 1000 records, and the export ends with 990"}},
		"tail cut inside":   {file(slices.Delete(slices.Clone(tr.lines), len(tr.lines)-11, len(tr.lines)-1)...), nil, Problem{InRecords, 1001, 991, "the tail is cut: the checkpoint of 2026-03-01T10:16:40Z says that there were 1000 records, and the export ends with 990"}},
		"head cut":          {file(tr.lines[3:]...), nil, Problem{InRecords, uint64(len(tr.lines) - 2), 1, "records 1-3 are missing: the checkpoint of 2026-03-01T10:16:40Z says that they were there"}},
		"all cut":           {file(tr.lines[len(tr.lines)-1]), nil, Problem{InRecords, 2, 1, "records 1-1000 are missing: the checkpoint of 2026-03-01T10:16:40Z says that they were there"}},
		"nothing left":      {nil, checkpoints, Problem{InRecords, 1, 1, "the tail is cut: the checkpoint of 2026-03-01T10:16:40Z says that there were 1000 records, and the export ends with 0"}},
		"another's key":     {file(records...), file(forged), Problem{InCheckpoints, 1, 1000, "line 1 of the checkpoints: the checkpoint of 2026-03-01T10:00:00Z is not signed by the given key"}},
		"another's inside":  {file(append(tr.records(), forged)...), nil, Problem{InRecords, 1001, 1000, "line 1001 is not a checkpoint of this trail: the checkpoint of 2026-03-01T10:00:00Z is not signed by the given key"}},
		"no line end":       {bytes.TrimSuffix(file(tr.lines...), []byte("\n")), nil, Problem{InRecords, uint64(len(tr.lines)), 0, "line 1010 has no end: the export was cut"}},
		"set back":          {file(records...), set, Problem{InCheckpoints, 11, 10, "the trail was set back: the checkpoint of 2026-03-01T10:00:10Z vouches for 10 records, and the checkpoint of 2026-03-01T10:16:40Z before it for 1000"}},
		"checkpoint moved":  {file(slices.Insert(slices.Delete(slices.Clone(tr.lines), 100, 101), 99, tr.lines[100])...), nil, Problem{InRecords, 101, 100, "the checkpoint of 2026-03-01T10:01:40Z, which vouches for record 100, stands before record 100"}},
		"checkpoint behind": {file(slices.Insert(slices.Delete(slices.Clone(tr.lines), 100, 101), 101, tr.lines[100])...), nil, Problem{InRecords, 102, 100, "the checkpoint of 2026-03-01T10:01:40Z, which vouches for record 100, is out of order"}},
		"checkpoint twice":  {file(slices.Insert(slices.Clone(tr.lines), 100, tr.lines[100])...), nil, Problem{InRecords, 102, 100, "the checkpoint of 2026-03-01T10:01:40Z, which vouches for record 100, is out of order"}},
		"something before":  {file(bytes.Replace(records[0], []byte(`"prev":"0`), []byte(`"prev":"1`), 1)), nil, Problem{InRecords, 1, 1, "record 1 does not begin the trail: it follows another one"}},
	} {
		r := verify(t, c.export, c.checkpoints)
		if !slices.Contains(r.Problems, c.want) {
			t.Errorf("%s: want %+v, got %+v", name, c.want, r.Problems)
		}
	}
	r := verify(t, file(records[:950]...), file(tr.checkpoints[:9]...))
	if want := []string{"records 901-950 are behind the last checkpoint, and nobody vouches for them"}; !r.OK() || r.Vouched != 900 || !slices.Equal(r.Warnings, want) {
		t.Errorf("got %+v", r)
	}
}

func TestAForgeryThatIsChainedAnewIsFound(t *testing.T) {
	t.Parallel()
	tr := newTrail(1, 30, 9)
	for i := range tr.records() {
		forged := tr.records()
		forged[i] = bytes.Replace(forged[i], []byte("ada"), []byte("eve"), 1)
		rechain(t, forged, i)
		if r := verify(t, file(forged...), nil); !r.OK() {
			t.Fatalf("the forgery of record %d is not good enough: %+v", i+1, r.Problems)
		}
		r := verify(t, file(forged...), file(tr.checkpoints...))
		wantProblem(t, &r, "vouches for another one")
		if r.Vouched > uint64(i) {
			t.Errorf("a checkpoint vouches for record %d, which was forged from %d on", r.Vouched, i+1)
		}
		// Its own checkpoints have another key.
		last := Checkpoint{Seq: 30, First: 1, Time: start, Hash: hashOf(t, forged)}
		r = verify(t, file(append(forged, last.Sign(keyOf("mallory")))...), nil)
		wantProblem(t, &r, "is not signed by the given key")
		last.KeyID = KeyID(serverPub)
		claimed := bytes.Replace(last.Sign(keyOf("mallory")), []byte(KeyID(publicOf(keyOf("mallory")))), []byte(KeyID(serverPub)), 1)
		r = verify(t, file(append(forged, claimed)...), nil)
		wantProblem(t, &r, "is not signed by the given key")
	}
}

func hashOf(t *testing.T, records [][]byte) Hash {
	t.Helper()
	c, err := Resume(records[len(records)-1])
	if err != nil {
		t.Fatal(err)
	}
	return c.hash
}

func TestRandomEditsAreFound(t *testing.T) {
	t.Parallel()
	tr := newTrail(41, 60, 20)
	export, records, checkpoints := file(tr.lines...), file(tr.records()...), file(tr.checkpoints...)
	edit := func(r *rapid.T, of []byte) []byte {
		at := rapid.IntRange(0, len(of)-1).Draw(r, "at")
		piece := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 1, 5), rapid.SampledFrom([][]byte{{'\n'}, {' '}, {'\r'}, {0}, []byte("0"), []byte("\n\n")})).Draw(r, "piece")
		edited := slices.Clone(of)
		switch rapid.SampledFrom([]string{"replace", "insert", "delete"}).Draw(r, "edit") {
		case "replace":
			copy(edited[at:], piece)
		case "insert":
			edited = slices.Insert(edited, at, piece...)
		default:
			edited = slices.Delete(edited, at, min(at+rapid.IntRange(1, 20).Draw(r, "bytes"), len(edited)))
		}
		if bytes.Equal(edited, of) {
			r.Skip("nothing was changed")
		}
		return edited
	}
	rapid.Check(t, func(r *rapid.T) {
		e := edit(r, export)
		if report := verify(r, e, nil); report.OK() {
			r.Fatalf("not found: %s", e)
		}
		e = edit(r, records)
		if report := verify(r, e, checkpoints); report.OK() {
			r.Fatalf("not found: %s", e)
		}
	})
}

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	garbage := bytes.Repeat([]byte("x\n"), 5000)
	r := verify(t, garbage, garbage)
	if len(r.Problems) != 100 || r.More != 4900 || len(r.Warnings) != 100 {
		t.Errorf("%d problems and %d more, %d warnings", len(r.Problems), r.More, len(r.Warnings))
	}
}

// Not at the same time as others, which take memory too.
func TestLongLinesTakeNoMemory(t *testing.T) {
	tr := newTrail(1, 10, 5)
	in := io.MultiReader(bytes.NewReader(file(tr.lines[:3]...)), io.LimitReader(endless{}, 50<<20), strings.NewReader("\n"), bytes.NewReader(file(tr.lines[3:]...)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := Verify(in, nil, serverPub)
	runtime.ReadMemStats(&after)
	if err != nil || r.Records != 10 {
		t.Errorf("got %+v, %v", r, err)
	}
	wantProblem(t, &r, "line 4 is not a record: it has more than 4096 bytes")
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 1<<20 {
		t.Errorf("%d bytes were taken", taken)
	}
}

// endless is text without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestReadersThatFail(t *testing.T) {
	t.Parallel()
	tr := newTrail(1, 10, 5)
	broken := errors.New("broken")
	half := func(all []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(all[:len(all)/2]), iotest.ErrReader(broken))
	}
	if _, err := Verify(half(file(tr.lines...)), nil, serverPub); !errors.Is(err, broken) {
		t.Errorf("reading the records gave %v", err)
	}
	for _, export := range [][]byte{file(tr.lines...), file(tr.lines[:2]...), nil} {
		if _, err := Verify(bytes.NewReader(export), half(file(tr.checkpoints...)), serverPub); !errors.Is(err, broken) {
			t.Errorf("reading the checkpoints gave %v", err)
		}
	}
	if _, err := Verify(bytes.NewReader(nil), nil); err == nil {
		t.Error("a trail was verified without a key")
	}
	one, err := Verify(iotest.OneByteReader(bytes.NewReader(file(tr.lines...))), nil, serverPub)
	if want := verify(t, file(tr.lines...), nil); err != nil || !reflect.DeepEqual(one, want) {
		t.Errorf("got %+v, want %+v, %v", one, want, err)
	}
}

func TestCheckpoints(t *testing.T) {
	t.Parallel()
	want := Checkpoint{Seq: 1000, First: 17, Time: start, Hash: Hash{1, 2}}
	line := want.Sign(serverKey)
	want.KeyID = KeyID(serverPub)
	if got, err := ParseCheckpoint(line, publicOf(keyOf("other")), serverPub); err != nil || got != want {
		t.Errorf("got %+v, want %+v, %v", got, want, err)
	}
	for _, keys := range [][]ed25519.PublicKey{nil, {publicOf(keyOf("other"))}, {serverPub[:31]}, {nil}} {
		if _, err := ParseCheckpoint(line, keys...); err == nil {
			t.Errorf("it is signed by %x", keys)
		}
	}
	for i := range line {
		for value := i % 17; value < 256; value += 17 {
			edited := slices.Clone(line)
			edited[i] = byte(value)
			if _, err := ParseCheckpoint(edited, serverPub); (err == nil) != (edited[i] == line[i]) {
				t.Fatalf("%s: %v", edited, err)
			}
		}
	}
	for _, edited := range []string{"", "{}", strings.ToUpper(string(line)), string(line) + " ", strings.Replace(string(line), `,"first"`, `,"checkpoint":1000,"first"`, 1)} {
		if _, err := ParseCheckpoint([]byte(edited), serverPub); err == nil {
			t.Errorf("%s was read", edited)
		}
	}
}
