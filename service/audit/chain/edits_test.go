package chain

import (
	"bytes"
	"crypto/ed25519"
	"reflect"
	"slices"
	"sync"
	"testing"
)

// window verifies edits of an export without beginning from the start each time: it has the verifier as it was before each line, and
// goes on only until the first problem, for problems are never taken back.
type window struct {
	lines  [][]byte
	before []verifier // of each line, and one behind the last
}

func newWindow(t *testing.T, lines [][]byte) *window {
	t.Helper()
	w := &window{lines: lines}
	v := verifier{keys: verifierKeys}
	for _, line := range lines {
		w.before = append(w.before, v)
		if err := v.take(line, true); err != nil {
			t.Fatal(err)
		}
	}
	w.before = append(w.before, v)
	if err := v.finish(); err != nil || !v.report.OK() {
		t.Fatalf("the export has problems before it is edited: %v, %v", v.report.Problems, err)
	}
	return w
}

var verifierKeys = append([]ed25519.PublicKey{publicOf(keyOf("other"))}, serverPub)

// found reports whether something is found when the bytes of an edit, which may be several lines, stand in the place of the lines
// from first up to behind.
func (w *window) found(t *testing.T, first, behind int, edit []byte) bool {
	t.Helper()
	v := w.before[first]
	take := func(line []byte, whole bool) bool {
		if err := v.take(line, whole); err != nil {
			t.Fatal(err)
		}
		return !v.report.OK()
	}
	for len(edit) > 0 {
		line, rest, whole := bytes.Cut(edit, []byte{'\n'})
		if !whole && behind < len(w.lines) { // what has no end goes on with the next line
			line, behind = append(slices.Clone(line), w.lines[behind]...), behind+1
			whole = true
		}
		if take(line, whole) {
			return true
		}
		edit = rest
	}
	for _, line := range w.lines[behind:] {
		if take(line, true) {
			return true
		}
	}
	if err := v.finish(); err != nil {
		t.Fatal(err)
	}
	return !v.report.OK()
}

// parallel divides numbers among a few goroutines.
func parallel(n int, do func(int)) {
	var group sync.WaitGroup
	for part := range 4 {
		group.Go(func() {
			for i := part; i < n; i += 4 {
				do(i)
			}
		})
	}
	group.Wait()
}

func TestEveryChangedByteIsFound(t *testing.T) {
	t.Parallel()
	tr := newTrail(1, 1000, 100)
	w := newWindow(t, tr.lines)
	parallel(len(tr.lines), func(i int) {
		line := append(slices.Clone(tr.lines[i]), '\n')
		for at, b := range line {
			value := byte('0') // it leaves most of a line what it was, digits and letters
			switch {
			case at%3 == 0:
				value = b ^ byte(1+(i+at)%255)
			case b == '0':
				value = '1'
			}
			line[at] = value
			if !w.found(t, i, i+1, line) {
				t.Errorf("line %d, byte %d: %q in the place of %q was not found", i+1, at, value, b)
			}
			line[at] = b
		}
	})
}

func TestEveryDroppedSwappedRepeatedAndCutLineIsFound(t *testing.T) {
	t.Parallel()
	tr := newTrail(1, 1000, 1000)
	w := newWindow(t, tr.lines)
	stranger := newTrail(1, 1001, 2000).records()
	parallel(1000, func(i int) {
		for name, found := range map[string]bool{
			"dropped":  w.found(t, i, i+1, nil),
			"cut":      w.found(t, i, 1000, nil), // all but the closing checkpoint
			"repeated": w.found(t, i, i, file(tr.lines[i])),
			"twice":    w.found(t, 999, 999, file(tr.lines[i])),
			"inserted": w.found(t, i, i, file(stranger[(i+500)%1000])),
			"blank":    w.found(t, i, i, []byte("\n")),
			"replaced": w.found(t, i, i+1, file(stranger[(i+1)%1000])),
			"swapped":  w.found(t, i, i+2, file(tr.lines[i+1], tr.lines[i])),
		} {
			if !found {
				t.Errorf("line %d, %s: not found", i+1, name)
			}
		}
	})
}

// The same with Verify itself on a shorter trail, with the checkpoints inside and apart. Where they are inside, it says the same as
// the window.
func TestVerifyFindsWhatTheWindowFinds(t *testing.T) {
	t.Parallel()
	tr := newTrail(1, 6, 4)
	w := newWindow(t, tr.lines)
	same := func(first, behind int, edit []byte) {
		edited := slices.Concat(file(tr.lines[:first]...), edit, file(tr.lines[behind:]...))
		r := verify(t, edited, nil, verifierKeys...)
		if found := w.found(t, first, behind, edit); found != !r.OK() || !found {
			t.Errorf("lines %d-%d as %q: the window says %v, and Verify %+v", first+1, behind, edit, found, r)
		}
	}
	for i, line := range tr.lines {
		line = append(slices.Clone(line), '\n')
		for at, b := range line {
			for _, value := range []byte{'0', '\n', b ^ 0x20} {
				if line[at] = value; value != b {
					same(i, i+1, line)
				}
			}
			line[at] = b
		}
		for j := range tr.lines {
			same(i, i, file(tr.lines[j]))
		}
	}
	records, checkpoints := tr.records(), file(tr.checkpoints...)
	for i := range records {
		for name, lines := range map[string][][]byte{
			"cut":      records[:i],
			"dropped":  slices.Delete(slices.Clone(records), i, i+1),
			"repeated": slices.Insert(slices.Clone(records), i, records[i]),
			"swapped":  slices.Concat(records[:i], [][]byte{records[(i+1)%6], records[i]}, records[min(i+2, 6):]),
		} {
			if name == "dropped" && i == 0 {
				continue // without its closing checkpoint, an export may begin with any record
			}
			if r := verify(t, file(lines...), checkpoints); r.OK() {
				t.Errorf("record %d, %s: not found", i+1, name)
			}
		}
		edited := slices.Clone(records)
		for at := range records[i] {
			edited[i] = slices.Clone(records[i])
			edited[i][at] ^= 1
			if r := verify(t, file(edited...), checkpoints); r.OK() {
				t.Errorf("record %d, byte %d: not found", i+1, at)
			}
		}
	}
}

func TestVerifyTakesExportsAsTheWindowDoes(t *testing.T) {
	t.Parallel()
	tr := newTrail(7, 50, 20)
	w := newWindow(t, tr.lines)
	v := w.before[len(tr.lines)]
	if err := v.finish(); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, file(tr.lines...), nil, verifierKeys...); !reflect.DeepEqual(r, v.report) {
		t.Errorf("got %+v, want %+v", r, v.report)
	}
}
