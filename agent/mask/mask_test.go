package mask

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newSet(values ...string) *Set {
	s := new(Set)
	for i, v := range values {
		s.Add(Secret{Name: fmt.Sprintf("S%d", i), Value: []byte(v)})
	}
	return s
}

// inPieces masks a text that comes in pieces.
func inPieces(s *Set, pieces ...string) string {
	stream := s.Stream()
	var out strings.Builder
	for _, p := range pieces {
		input := []byte(p)
		out.Write(stream.Write(input))
		for i := range input { // what was passed in is the caller's again
			input[i] = '!'
		}
	}
	out.Write(stream.End())
	return out.String()
}

// quiet is a text that is long enough to be passed over at once.
var quiet = strings.Repeat(".", 40)

func TestReplacements(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                 {"", ""},
		"no secret":               {"just text", "just text"},
		"one":                     {"the hunter2-secret is", "the **** is"},
		"at both ends":            {"hunter2-secret and hunter2-secret", "**** and ****"},
		"side by side":            {"hunter2-secrethunter2-secret", "********"},
		"overlapping":             {"hunter2-secret-word", "****"},
		"one in another":          {"a long secret sentence", "****"},
		"the beginning of one":    {"hunter2-secre", "hunter2-secre"},
		"twice begun":             {"hunter2-hunter2-secret", "hunter2-****"},
		"a line of several":       {"x second-line y", "x **** y"},
		"all lines":               {"first-line\nsecond-line\n", "****\n"},
		"of a terminal":           {"first-line\r\nsecond-line\r\n", "****\r\n"},
		"colours inside":          {"hunter2\x1b[1m-\x1b[0msecret!", "****\x1b[1m\x1b[0m!"},
		"colours around":          {"\x1b[31mhunter2-secret\x1b[0m", "\x1b[31m****\x1b[0m"},
		"a character set":         {"hunter2\x1b(B-secret", "****\x1b(B"},
		"no sequence":             {"hunter2\x1b\x01-secret", "hunter2\x1b\x01-secret"},
		"one without end":         {"hunter2-secret\x1b[", "****\x1b["},
		"one that swallows":       {"\x1b(hunter2-secret", "\x1b(****"},
		"one after nothing":       {quiet + "\x1b[0hun\x1b[1mter2-secret", quiet + "\x1b[0hun\x1b[1mter2-secret"},
		"after nothing":           {quiet + "hunter2-secret" + quiet, quiet + "****" + quiet},
		"bytes that are not text": {"\xff\x00hunter2-secret\xfe", "\xff\x00****\xfe"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSet("hunter2-secret", "secret-word", "a long secret sentence", "long secret", "first-line\nsecond-line\n")
			for cut := range len(c.text) + 1 {
				if got := inPieces(s, c.text[:cut], c.text[cut:]); got != c.want {
					t.Fatalf("cut at %d: got %q, want %q", cut, got, c.want)
				}
			}
			if got := inPieces(s, strings.Split(c.text, "")...); got != c.want {
				t.Fatalf("byte by byte: got %q, want %q", got, c.want)
			}
			if got := string(s.Mask([]byte(c.text))); got != c.want {
				t.Fatalf("at once: got %q, want %q", got, c.want)
			}
		})
	}
}

// marked says of each byte of a text whether a needle covers it, found in the plainest way.
func marked(needles []needle, text string) []bool {
	covered := make([]bool, len(text))
	mark := func(text string, origin func(int) int) {
		for at := range text {
			for _, n := range needles {
				if strings.HasPrefix(text[at:], string(n.text)) {
					for i := origin(at); i <= origin(at+len(n.text)-1); i++ {
						covered[i] = true
					}
				}
			}
		}
	}
	mark(text, func(at int) int { return at })
	var v visible
	v.read([]byte(text))
	mark(string(v.text), v.origin)
	return covered
}

// Whatever the secrets, the text and the cuts: no needle is left, other bytes are as they were, and cuts change nothing.
func TestWhateverTheCuts(t *testing.T) {
	t.Parallel()
	letter := rapid.SampledFrom([]string{"a", "b", "b", "a", "\n", "\x1b[1m", "\x1b", "[", "1", "m"})
	texts := func(shortest, longest int) *rapid.Generator[string] {
		return rapid.Map(rapid.SliceOfN(letter, shortest, longest), func(parts []string) string { return strings.Join(parts, "") })
	}
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(texts(3, 14), 1, 4).Draw(t, "secrets")
		s := newSet(secrets...)
		parts := rapid.SliceOfN(rapid.OneOf(texts(0, 8), rapid.SampledFrom(secrets), rapid.Just(quiet)), 0, 6).Draw(t, "parts")
		text := strings.Join(parts, "")
		want := inPieces(newSet(secrets...), text)
		if len(text) > 0 {
			covered := marked(s.needles, text)
			var plain strings.Builder
			for i := range text {
				if !covered[i] {
					plain.WriteByte(text[i])
				}
			}
			rest := strings.ReplaceAll(want, replacement, "")
			if !s.hasEscapes() {
				rest, plainText := withoutSequences(rest), withoutSequences(plain.String())
				if rest != plainText {
					t.Fatalf("of %q is left %q, want %q", text, rest, plainText)
				}
			} else if rest != plain.String() {
				t.Fatalf("of %q is left %q, want %q", text, rest, plain.String())
			}
		}
		for cut := range len(text) + 1 {
			if got := inPieces(s, text[:cut], text[cut:]); got != want {
				t.Fatalf("%q cut at %d: got %q, want %q", text, cut, got, want)
			}
		}
		var pieces []string
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		one, many := newSet(secrets...), newSet(secrets...)
		if got := inPieces(many, pieces...); got != inPieces(one, text) {
			t.Fatalf("%q: got %q, want %q", pieces, got, want)
		}
		if a, b := fmt.Sprint(one.Counts()), fmt.Sprint(many.Counts()); a != b {
			t.Fatalf("%q: counted %s, want %s", pieces, b, a)
		}
	})
}

func (s *Set) hasEscapes() bool {
	m := s.matcher.Load()
	return m != nil && m.escapes
}

func withoutSequences(text string) string {
	var v visible
	v.read([]byte(text))
	return string(v.text)
}

func TestCounts(t *testing.T) {
	t.Parallel()
	s := newSet("hunter2-secret", "another-secret", "never-there")
	s.Add(Secret{"S1", []byte("a second value of it")})
	got := inPieces(s, "hunter2-secret another-se", "cret hunter2-secret; a second value of it")
	if want := "**** **** ****; ****"; got != want {
		t.Errorf("got %q", got)
	}
	if got, want := fmt.Sprint(s.Counts()), "map[S0:2 S1:2 S2:0]"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

func TestSecretsThatAreTooShort(t *testing.T) {
	t.Parallel()
	s := new(Set)
	warnings := s.Add(Secret{"PIN", []byte("1234")}, Secret{"KEY", []byte("a longer line\nend\n")}, Secret{"NONE", nil}, Secret{"GOOD", []byte("123456")})
	if len(warnings) != 2 || !strings.Contains(warnings[0], "PIN") || !strings.Contains(warnings[1], "KEY") {
		t.Errorf("the warnings are %q", warnings)
	}
	if got, want := inPieces(s, "1234 end a longer line 123456"), "1234 end **** ****"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A secret that is added while a stream goes on is looked for in what the stream still holds.
func TestASecretThatIsAddedLater(t *testing.T) {
	t.Parallel()
	s := newSet("prefix-of-it-and-more")
	stream := s.Stream()
	out := string(stream.Write([]byte("x prefix-of-it")))
	s.Add(Secret{"NEW", []byte("prefix-of-it")})
	out += string(stream.Write([]byte(" y"))) + string(stream.End())
	if want := "x **** y"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// A run of overlapping secrets is one replacement, and is not kept in memory.
func TestARunWithoutEnd(t *testing.T) {
	t.Parallel()
	s := newSet("aaaaaaaa")
	stream := s.Stream()
	run := bytes.Repeat([]byte("a"), 10_000)
	var out []byte
	for range 100 {
		out = append(out, stream.Write(run)...)
		if len(stream.held) > 8 {
			t.Fatalf("%d bytes are held", len(stream.held))
		}
	}
	if out = append(out, stream.End()...); string(out) != replacement {
		t.Errorf("got %.100q", out)
	}
}

// Nothing is copied where there is nothing to replace.
func TestWhatPassesIsNotCopied(t *testing.T) { //nolint:paralleltest // counts what is allocated
	text := bytes.Repeat([]byte("an ordinary line of a build\n"), 1000)
	stream := newSet("hunter2-secret").Stream()
	if got := stream.Write(text); &got[0] != &text[0] || len(got) != len(text) {
		t.Error("the text was copied")
	}
	if n := testing.AllocsPerRun(100, func() { stream.Write(text) }); n != 0 {
		t.Errorf("a write allocates %v times", n)
	}
	if got := new(Set).Stream().Write(text); &got[0] != &text[0] {
		t.Error("without secrets the text was copied")
	}
}

func FuzzMask(f *testing.F) {
	f.Add("hunter2-secret", "the hunter2\x1b[1m-secret is", uint16(7))
	f.Add("two\nlines of it", "two\r\nlines of it", uint16(3))
	f.Fuzz(func(t *testing.T, secret, text string, cut uint16) {
		if len(secret) > 500 || len(text) > 5000 {
			return // the plain way of looking takes too long
		}
		s := newSet(secret)
		want := inPieces(s, text)
		at := min(int(cut), len(text))
		if got := inPieces(s, text[:at], text[at:]); got != want {
			t.Fatalf("cut at %d: got %q, want %q", at, got, want)
		}
		for _, n := range s.needles {
			if !strings.Contains(replacement, string(n.text)) && slices.Contains(marked([]needle{n}, text), true) && want == text {
				t.Fatalf("%q is left in %q", n.text, want)
			}
		}
	})
}

// A kilobyte of output with secrets that overlap, begin alike and have several lines, in all their forms, cut anywhere: the result is
// that of the whole, and none of the forms is in it.
func TestEverySplitOfAKilobyte(t *testing.T) {
	t.Parallel()
	values := []string{"hunter2-secret", "secret-word-of-it", "hunter2-secret-longer", "-----BEGIN-----\nfirst line of a key\nsecond line\n-----END-----\n"}
	s := newSet(values...)
	random := rand.New(rand.NewChaCha8([32]byte{7}))
	for range 8 {
		var text strings.Builder
		for text.Len() < 1024 {
			all := forms([]byte(values[random.IntN(len(values))]))
			form := all[random.IntN(len(all))]
			switch random.IntN(4) {
			case 0: // the beginning of one, and then another
				text.Write(form[:random.IntN(len(form)+1)])
			case 1:
				text.WriteString("hunter2-secret-word-of-it")
			default:
				text.Write(form)
				text.WriteString(" \x1b[31mplain text\x1b[0m\r\n"[:random.IntN(20)])
			}
		}
		whole := text.String()[:1024]
		want := inPieces(s, whole)
		for cut := range len(whole) + 1 {
			if got := inPieces(s, whole[:cut], whole[cut:]); got != want {
				t.Fatalf("cut at %d: got %q, want %q", cut, got, want)
			}
		}
		for _, value := range values {
			for _, form := range forms([]byte(value)) {
				if len(form) >= MinLength && strings.Contains(want, string(form)) {
					t.Fatalf("%q is left in %q", form, want)
				}
			}
		}
	}
}
