package lines

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func run(t fataler, q Query, all []Piece, window, overlap int) Result {
	t.Helper()
	s, err := NewSearch(q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	s.window, s.overlap = window, overlap
	for _, p := range all {
		before := bytes.Clone(p.Data)
		s.Write(p)
		if !bytes.Equal(before, p.Data) {
			t.Fatalf("a piece was changed from %q to %q", before, p.Data)
		}
		p.Data = bytes.Repeat([]byte("#"), len(p.Data)) // what is kept of it must be a copy
	}
	return s.End()
}

// fataler is a testing.T or a rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// show writes a result so that two can be compared: nil and empty are the same.
func show(r Result) string {
	var out strings.Builder
	for _, m := range r.Matches {
		fmt.Fprintf(&out, "%v\n", m)
	}
	fmt.Fprintln(&out, r.Count, r.Truncated)
	return out.String()
}

func TestSearch(t *testing.T) {
	t.Parallel()
	out, err := channel{0, 1}, stderr(0)
	mixed := []said{out.says("one err"), err.says("its own\n"), out.says("or\nend\n"), err.says("no end: error\r")}
	for name, c := range map[string]struct {
		log  []said
		q    Query
		want string // the offsets, numbers and texts of the matches
	}{
		"a text":                      {stdout("a\nb error\r\n\nerror"), Query{Text: "error"}, "2/1:b [error] 12/3:[error]"},
		"no match":                    {stdout("a\nb\n"), Query{Text: "c"}, ""},
		"an empty log":                {nil, Query{Text: "c"}, ""},
		"a line cut by another one":   {mixed, Query{Text: "error"}, "0/0:one [error] 22/3:no end: [error]"},
		"one stream of it":            {mixed, Query{Text: "error", Stream: 2}, "22/3:no end: [error]"},
		"another step":                {mixed, Query{Text: "error", Step: 1}, ""},
		"any case":                    {stdout("Error\nERROR\nerrör"), Query{Text: "eRRor", IgnoreCase: true}, "0/0:[Error] 6/1:[ERROR]"},
		"any case of other letters":   {stdout("ÑU\nñu\nNU"), Query{Text: "ñu", IgnoreCase: true}, "0/0:[ÑU] 4/1:[ñu]"},
		"any case of what is no text": {stdout("A\xff\na\xff\n\xff"), Query{Text: "a\xff", IgnoreCase: true}, "0/0:[A\xff] 3/1:[a\xff]"},
		"bytes that are not text":     {stdout("\x00\xfe\n\x00\xff\n"), Query{Text: "\x00\xff"}, "3/1:[\x00\xff]"},
		"a carriage return inside":    {stdout("a\rb\r\n"), Query{Text: "\r"}, "0/0:a[\r]b"},
		"none before the line end":    {stdout("ab\r\n"), Query{Text: "b\r"}, ""},
		"a pattern":                   {stdout("x1\nx22\n"), Query{Pattern: `\d\d`}, "3/1:x[22]"},
		"ends of lines":               {stdout("ab\r\nxab\nab x\n"), Query{Pattern: `^ab$`}, "0/0:[ab]"},
		"ends of the text":            {stdout("ab\r\nxab\nab x\n"), Query{Pattern: `\Aab\z`}, "0/0:[ab]"},
		"white space is on one line":  {stdout("a\nb\na b"), Query{Pattern: `a\sb`}, "4/2:[a b]"},
		"any byte is on one line":     {stdout("a\nb\na b"), Query{Pattern: `(?s)a.b`}, "4/2:[a b]"},
		"empty lines":                 {stdout("\nx\n\r\n\n"), Query{Pattern: `^$`}, "0/0:[] 3/2:[] 5/3:[]"},
		"what needs one of some":      {stdout("a fatal\nan ERR\nnone"), Query{Pattern: `(?i)err|fat+al`}, "0/0:a [fatal] 8/1:an [ERR]"},
		"a letter with three forms":   {stdout("\u212a\nk\nK"), Query{Pattern: `k`, IgnoreCase: true}, "0/0:[\u212a] 4/1:[k] 6/2:[K]"},
		"a byte for U+FFFD":           {stdout("ab\xffcd"), Query{Pattern: `b\x{fffd}c`}, "0/0:a[b\xffc]d"},
		"a quoted pattern":            {stdout("a.b)"), Query{Pattern: `\QA.B)`, IgnoreCase: true}, "0/0:[a.b)]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.q.MaxMatches = 10
			for _, all := range [][]Piece{whole(c.log), byteByByte(c.log)} {
				var got []string
				for _, m := range run(t, c.q, all, window, overlap).Matches {
					got = append(got, fmt.Sprintf("%d/%d:%s[%s]%s", m.Offset, m.Line, m.Text[:m.Start], m.Text[m.Start:m.End], m.Text[m.End:]))
				}
				if strings.Join(got, " ") != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestQueriesThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{}, "neither a text nor a pattern"},
		{Query{Text: "a", Pattern: "a"}, "give one of them"},
		{Query{Text: "ab\nc"}, "line end at byte 2"},
		{Query{Text: strings.Repeat("x", 5000)}, "5000 bytes, and may have 4096"},
		{Query{Pattern: strings.Repeat("x", 2000)}, "2000 bytes, and may have 1024"},
		{Query{Text: "a", Before: 101}, "101 lines before and 0 after"},
		{Query{Text: "a", After: -1}, "-1 after"},
		{Query{Text: "a", MaxMatches: 10_001}, "10001 matches; there may be 0 to 10000"},
		{Query{Text: "a", Step: -2}, "step -2"},
		{Query{Pattern: "foo(bar"}, `at byte 3, where "(bar" begins: missing closing )`},
		{Query{Pattern: "a)b", IgnoreCase: true}, `at byte 1, where ")b" begins: unexpected )`},
		{Query{Pattern: `a*|*b`}, `at byte 3, where "*b" begins: missing argument`},
		{Query{Pattern: `ab\q`}, `at byte 2, where "\\q" begins: invalid escape sequence`},
		{Query{Pattern: "a[z-b]" + strings.Repeat("c", 50)}, `at byte 1, where "[z-b]ccccccccccccccc..." begins: invalid character class range`},
		{Query{Pattern: "a\xff"}, "at byte 1"},
		{Query{Pattern: "(abcdefghijklmnopqrst){1000}"}, "instructions, and may to 1028"},
		{Query{Pattern: "((a{100}){100}){100}"}, "invalid repeat count"},
	} {
		if _, err := NewSearch(c.q); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v gave %v, want %s", c.q, err, c.want)
		}
	}
}

// Whatever the log, its cuts and the query: the result is that of the model.
func TestSearchIsLikeTheModel(t *testing.T) {
	t.Parallel()
	texts := rapid.SampledFrom([]string{
		"a", "b", "ab", "B", "k", "\u212a", "ñ", "\xff", "\n", "\n", "\n", "a\n", "ab\n", "\r\n", "\r", " ", "0", "abababababababab",
	})
	words := []string{"a", "b", "B", "k", "ñ", "\xff", "\r", "ab", "ba", "Ñ0", "ab ", "a\xff"}
	patterns := []string{
		`a`, `^a`, `a$`, `^$`, `\s`, `a*`, `b+a`, `a|b`, `(ab){2}`, `[^a]b`, `(?s).+`, `ab|0|k`, `\bb`, `(?i)AB`, `a.*b`, `\Aa`, `\x{fffd}`, `(a|\n)b`,
		`a{2,3}k`, `(?i:ab|ñ)`, `((a)|b)0`, `k`, `(?i)ka`, `a\n?b`, `[^\n]\z`, `(ab){0,2}0`, `(?i:ab)|0`, `ab|[0k]`, `(ab)*k`, `a+(b|0)`,
	}
	rapid.Check(t, func(t *rapid.T) {
		all := drawPieces(t, drawLog(t, texts))
		window := rapid.SampledFrom([]int{16, 40, 1 << 16}).Draw(t, "window")
		q := Query{
			IgnoreCase: rapid.Bool().Draw(t, "ignore case"), MaxMatches: rapid.IntRange(0, 9).Draw(t, "matches"),
			Before: rapid.IntRange(0, 3).Draw(t, "before"), After: rapid.IntRange(0, 3).Draw(t, "after"),
			Step: rapid.Int32Range(-1, 1).Draw(t, "step"), Stream: rapid.Uint8Range(0, 2).Draw(t, "stream"),
		}
		check := func(q Query) {
			if got, want := show(run(t, q, all, window, 9)), show(modelSearch(q, all, window, 9)); got != want {
				t.Fatalf("%+v in %+v: got\n%s\nwant\n%s", q, all, got, want)
			}
		}
		for _, q.Text = range words {
			check(q)
		}
		q.Text = ""
		for _, q.Pattern = range patterns {
			check(q)
		}
	})
}

// A text is found wherever it is in a line of any length, and memory does not grow with the line.
func TestLinesWithoutEnd(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	needle := strings.Repeat("needle", MaxTextBytes)[:MaxTextBytes]
	filler := bytes.Repeat([]byte("-"), 256<<10)
	for range 20 {
		s, err := NewSearch(Query{Text: needle, MaxMatches: 1})
		if err != nil {
			t.Fatal(err)
		}
		at := random.Uint64N(4 << 20)
		offset := uint64(0)
		write := func(d []byte) {
			s.Write(Piece{Offset: offset, Stream: 1, Data: d})
			offset += uint64(len(d))
		}
		for offset+uint64(len(filler)) < at {
			write(filler)
		}
		write(filler[:at-offset])
		cut := random.IntN(len(needle))
		write([]byte(needle[:cut]))
		write([]byte(needle[cut:]))
		for range 4 {
			write(filler)
		}
		if n := cap(s.channels[0].of.line.window); n > 2*window {
			t.Errorf("the search keeps %d bytes of the line", n)
		}
		r := s.End()
		if r.Count != 1 || len(r.Matches) != 1 {
			t.Fatalf("a text at %d was found %d times", at, r.Count)
		}
		m := r.Matches[0]
		if m.Skipped+uint64(m.Start) != at || string(m.Text[m.Start:m.End]) != needle || m.Line != 0 || m.Offset != 0 || !m.Cut {
			t.Errorf("a text at %d was found at %d+%d to %d", at, m.Skipped, m.Start, m.End)
		}
	}
}

// Of a long line the text around the match is returned, without half letters before it.
func TestTextAroundTheMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, match, after string
		skipped, length      int
		cut                  bool
	}{
		{strings.Repeat("a", 2000), "X", strings.Repeat("b", 2000), 0, 4001, false},
		{strings.Repeat("a", 5000), "X", "", 905, 4096, false},
		{"", "X", strings.Repeat("b", 5000), 0, 4096, true},
		{strings.Repeat("é", 5000), "XY", strings.Repeat("b", 5000), 7954, 4096, true},
		{strings.Repeat("é", 5000), "X", strings.Repeat("b", 5000), 7954, 4096, true},
		{strings.Repeat("€", 5000), "X", strings.Repeat("b", 5000), 12954, 4096, true},
		{"aa", "X" + strings.Repeat("Y", 5000), "b", 2, 4096, true},
	} {
		r := run(t, Query{Pattern: "XY*", MaxMatches: 1}, whole(stdout("\n"+c.before+c.match+c.after+"\n")), window, overlap)
		m := r.Matches[0]
		if int(m.Skipped) != c.skipped || len(m.Text) != c.length || m.Cut != c.cut || m.Skipped+uint64(m.Start) != uint64(len(c.before)) {
			t.Errorf("%.6q: %d bytes from %d on, cut: %v; want %d from %d on", c.before, len(m.Text), m.Skipped, m.Cut, c.length, c.skipped)
		}
		if want := c.match[:min(len(c.match), maxMatchText)]; string(m.Text[m.Start:m.End]) != want {
			t.Errorf("the match is %.20q, want %.20q", m.Text[m.Start:m.End], want)
		}
	}
}

// A search is full when it has its matches and the lines after them, and goes on counting.
func TestFull(t *testing.T) {
	t.Parallel()
	s, err := NewSearch(Query{Text: "x", After: 2, MaxMatches: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, false, false, true, true} {
		s.Write(Piece{Offset: uint64(2 * i), Stream: 1, Data: []byte("x\n")})
		if s.Full() != want {
			t.Errorf("after line %d full is %v", i, s.Full())
		}
	}
	if r := s.End(); r.Count != 5 || len(r.Matches) != 2 || len(r.Matches[1].After) != 2 || r.Truncated {
		t.Errorf("got %s", show(r))
	}
}

// Whatever is asked for, a result takes no more memory than it may.
func TestResultIsBounded(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"x\n", strings.Repeat("x", 1000) + "\n", strings.Repeat("x", 9000) + "\n"} {
		s, err := NewSearch(Query{Text: "x", Before: MaxContext, After: MaxContext, MaxMatches: MaxMatches})
		if err != nil {
			t.Fatal(err)
		}
		block := []byte(strings.Repeat(line, 200_000/len(line)))
		for i := range uint64(30) {
			s.Write(Piece{Offset: i * uint64(len(block)), Stream: 1, Data: block})
		}
		r := s.End()
		if want := uint64(30 * (len(block) / len(line))); r.Count != want {
			t.Errorf("counted %d matches, want %d", r.Count, want)
		}
		sum := 0
		for _, m := range r.Matches {
			sum += cap(m.Text)
			for _, l := range append(m.Before, m.After...) {
				sum += cap(l.Text) + 80
			}
		}
		if !r.Truncated || sum > 2*maxResult || s.memory > maxResult+1<<20 {
			t.Errorf("%d matches take %d bytes, %d as it counts", len(r.Matches), sum, s.memory)
		}
	}
}

// However many channels there are, some are known; the lines of those that were forgotten count.
func TestManyChannels(t *testing.T) {
	t.Parallel()
	s, err := NewSearch(Query{Text: "x", Step: -1, MaxMatches: 10})
	if err != nil {
		t.Fatal(err)
	}
	const channels = 10 * maxChannels
	for i := range channels {
		s.Write(Piece{Offset: uint64(i), Step: int32(i), Stream: 1, Time: time.Unix(int64(i), 0), Data: []byte("x")})
	}
	if len(s.channels) != maxChannels {
		t.Errorf("%d channels are known", len(s.channels))
	}
	r := s.End()
	for i, m := range r.Matches {
		if m.Step != int32(i) || m.Offset != uint64(i) || m.Line != 0 {
			t.Errorf("match %d is %v", i, m)
		}
	}
	if r.Count != channels {
		t.Errorf("counted %d lines, want %d", r.Count, channels)
	}
}

func TestLowerCase(t *testing.T) {
	t.Parallel()
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	for from := range 9 {
		if got := string(appendLower(nil, all[from:])); got != lowerCase(string(all[from:])) {
			t.Errorf("from %d on it is %q", from, got)
		}
	}
}

func FuzzSearch(f *testing.F) {
	f.Add("ab", false, false, uint32(1), []byte("abab\nb\r\na"))
	f.Add("a|B", true, true, uint32(3), []byte("\x01A\x02b\n\x00a\xff\n"))
	f.Add(`(?i)k[^x]\s*$`, true, false, uint32(7), []byte("k \n\xe2\x84\xaa \x02\n"))
	f.Fuzz(func(t *testing.T, find string, pattern, ignoreCase bool, seed uint32, data []byte) {
		q := Query{Text: find, IgnoreCase: ignoreCase, Before: 2, After: 2, Step: -1, MaxMatches: 5}
		if pattern {
			q.Text, q.Pattern = "", find
		}
		if _, err := NewSearch(q); err != nil || len(data) > 4<<10 {
			return
		}
		var log []said
		for i, part := range bytes.Split(data, []byte{2}) {
			log = append(log, channel{0, uint8(i%2 + 1)}.says(string(part)))
		}
		all := pieces(log, func(at int) bool { return uint32(at)*2654435761^seed < 1<<30 })
		if got, want := show(run(t, q, all, 16, 9)), show(modelSearch(q, all, 16, 9)); got != want {
			t.Fatalf("%+v in %+v: got\n%s\nwant\n%s", q, all, got, want)
		}
	})
}
