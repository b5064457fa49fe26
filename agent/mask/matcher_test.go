package mask

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// plainly finds what find does, in the plainest way.
func plainly(m *matcher, text []byte) []match {
	var found []match
	for at := range text {
		longest := -1
		for i, n := range m.needles { // a shorter one comes before a longer one that begins with it
			if bytes.HasPrefix(text[at:], n.text) {
				longest = i
			}
		}
		if longest >= 0 {
			found = append(found, match{at, at + len(m.needles[longest].text), longest})
		}
	}
	return found
}

// Leaps and stretches miss nothing and find nothing twice, wherever they begin and end.
func TestFindAnywhere(t *testing.T) {
	t.Parallel()
	run := func(texts ...[]byte) *rapid.Generator[[]byte] { // the length of one goes past several stretches
		return rapid.Custom(func(t *rapid.T) []byte {
			text := rapid.SampledFrom(texts).Draw(t, "text")
			return bytes.Repeat(text, rapid.IntRange(0, 900).Draw(t, "length")/len(text))
		})
	}
	quiet, loud := run([]byte("."), []byte("\n"), []byte("\xf9")), run([]byte("a"), []byte("ab"), []byte{escape})
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.SliceOfN(rapid.SampledFrom([]byte("abc\xe9")), MinLength, 16), 1, 6).Draw(t, "needles")
		var needles []needle
		for _, text := range texts {
			needles = append(needles, needle{text, nil})
		}
		m := newMatcher(needles)
		parts := rapid.SliceOfN(rapid.OneOf(quiet, loud, run(texts...), rapid.SampledFrom(texts)), 0, 12).Draw(t, "parts")
		text := bytes.Join(parts, nil)
		want := plainly(m, text)
		if got := m.find(text, 0, nil); !slices.Equal(got, want) {
			t.Fatalf("found %v, want %v", got, want)
		}
		if end := len(text) - m.stride - gram + 2; end > 0 {
			if got := m.lookUp(text, 0, end, nil); !slices.Equal(got, want) {
				t.Fatalf("without leaps found %v, want %v", got, want)
			}
		}
		if leap := m.begins.leap(text); leap > 0 && len(want) > 0 && want[0].start < leap {
			t.Fatalf("leaps %d bytes, but %v is there", leap, want[0])
		}
	})
}

// What is held back is the beginning of a needle, and the first there is.
func TestHoldAnywhere(t *testing.T) {
	t.Parallel()
	letters := rapid.SliceOfN(rapid.SampledFrom([]byte("ab..")), 0, 60)
	rapid.Check(t, func(t *rapid.T) {
		text := letters.Draw(t, "needle")
		text = append(append([]byte("ab"), text...), "abab"...)
		m := newMatcher([]needle{{text, nil}})
		text = append(bytes.Join(rapid.SliceOfN(letters, 0, 4).Draw(t, "before"), nil), text[:rapid.IntRange(0, len(text)).Draw(t, "begun")]...)
		want := max(0, len(text)-m.longest+1)
		for want < len(text) && !bytes.HasPrefix(m.needles[0].text, text[want:]) {
			want++
		}
		if got := m.hold(text); got != want {
			t.Fatalf("%q is held back from %d on, want %d", text, got, want)
		}
	})
}
