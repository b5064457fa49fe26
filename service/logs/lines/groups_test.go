package lines

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func groupsOf(all []Piece) ([]Group, bool) {
	g := NewGroups()
	for _, p := range all {
		g.Write(p)
	}
	return g.End()
}

// outline writes groups as LINE-END TITLE, indented by their depth; "?" after the end of an open one, and what there is of style,
// name and channel where it is not the usual.
func outline(groups []Group) string {
	var out []string
	for _, g := range groups {
		line := fmt.Sprintf("%s%d-%d", strings.Repeat(">", g.Depth), g.Line, g.EndLine)
		if g.Open {
			line += "?"
		}
		if line += " " + g.Title; g.Name != "" {
			line += "/" + g.Name
		}
		if !g.Collapsed {
			line += " +"
		}
		if g.Stream != 1 || g.Step != 0 {
			line += fmt.Sprintf(" @%d.%d", g.Step, g.Stream)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestGroups(t *testing.T) {
	t.Parallel()
	const erase = "\r\x1b[0K"
	for name, c := range map[string]struct {
		log  string
		want []string
	}{
		"no group":                   {"a\n:\n::\n-\n+++\n~\nsection\n\x1b[1mb\n\n", nil},
		"a group":                    {"::group::Build it\na\n::endgroup::\n", []string{"0-2 Build it"}},
		"an open one":                {"x\n::group::Build\na\nb", []string{"1-3? Build"}},
		"the next ends the former":   {"::group::A\n::group::B\n::endgroup::\n::endgroup::\n", []string{"0-1 A", "1-2 B"}},
		"one without title":          {"::group::\n::endgroup::", []string{"0-1 "}},
		"not at the beginning":       {" ::group::A\nx ::group::B\n--group--\n", nil},
		"with the returns of CRLF":   {"::group::A\r\n::endgroup::\r\n--- B\r\n", []string{"0-1 A", "2-3? B"}},
		"headers":                    {"--- A\na\n+++ B\nb\n~~~ C\nc\n--- D\n", []string{"0-2 A", "2-4 B +", "4-6 C", "6-7? D"}},
		"a header is the last":       {"--- A", []string{"0-0? A"}},
		"headers without title":      {"--- \n---\n+++ \n~~~  \n~~~\n---- a\n++++ b\n", nil},
		"a colored title":            {"--- \x1b[1;32mTests\x1b[0m :go:\x07 \xff\n", []string{"0-1? Tests :go: \ufffd"}},
		"a link in a title":          {"--- \x1b]8;;http://x\x1b\\Tests\x1b]8;;\x07!\n", []string{"0-1? Tests!"}},
		"a diff":                     {"--- a/x.go\n+++ b/x.go\n@@ -1 +1 @@\n-a\n+b\n--- c\n+++ d\n", nil},
		"a diff cut off":             {"--- a/x.go\n+++ b/x.go", nil},
		"half a diff":                {"--- a\n@@ x\n+++ b\n@@ x\n", nil},
		"a diff after a header":      {"--- Diff\n--- a\n+++ b\n@@\n+++ Next\n", []string{"0-4 Diff", "4-5? Next +"}},
		"a diff with context":        {"*** a\n--- b\n***************\n*** 1,5 ****\n--- 1,5 ----\n--- x\n***\n", nil},
		"the head of such a diff":    {"*** a\n--- b\n  x\n", nil},
		"a line of stars before":     {"*** a\nx\n--- B\n", []string{"2-3? B"}},
		"a removed line of dashes":   {"--- a ---\n--- localhost ping statistics ---\n", nil},
		"results of Go tests":        {"--- FAIL: TestX (0.00s)\n    --- PASS: TestX/a\n--- SKIP: TestY\n--- BENCH: B\n--- FAILED\n", []string{"4-5? FAILED"}},
		"the trace of a shell":       {"+++ dirname x\n++ cd x\n+++ pwd\n+ a\n", nil},
		"a header after a trace":     {"++ x\n+ echo\n+++ A\n", []string{"2-3? A +"}},
		"a section":                  {"section_start:1560896352:my_s" + erase + "My section\na\nsection_end:1560896353:my_s" + erase + "\n", []string{"0-2 My section/my_s +"}},
		"with erased lines":          {"\x1b[0Ksection_start:1:s[collapsed=true]" + erase + "\x1b[0K\x1b[36;1mTitle\x1b[0;m\n\x1b[0Ksection_end:2:s" + erase, []string{"0-1 Title/s"}},
		"with other options":         {"section_start:1:s[hide_duration=true, collapsed=true]" + erase + "T", []string{"0-0? T/s"}},
		"sections in one line":       {"section_start:1:a" + erase + "A\nsection_end:2:a" + erase + "section_start:2:b" + erase + "section_start:2:c" + erase + "C", []string{"0-1 A/a +", "1-1? b/b +", ">1-1? C/c +"}},
		"sections in one another":    {"section_start:1:a\r\nsection_start:1:b\r\nsection_start:1:a\r\nsection_end:1:a\r\nsection_end:1:a\r\n", []string{"0-4 a/a +", ">1-4 b/b +", ">>2-3 a/a +"}},
		"what is no section":         {"section_start:x:a\r\nsection_start:1:\r\nsection_start:1:a b\r\nsection_end:1:c\r\nsection_\r\n", nil},
		"all styles in one another":  {"--- A\n::group::B\nsection_start:1:c\rC\n--- D\n::endgroup::\nsection_end:1:c\n", []string{"0-3 A", ">1-3 B", ">>2-3 C/c +", "3-6? D"}},
		"a header in a group":        {"::group::A\n--- B\n--- C\n::endgroup::\n", []string{"0-3 A", ">1-2 B", ">2-3 C"}},
		"a progress bar in between":  {"--- A\n1%\r2%\r3%\n+++ B\n", []string{"0-2 A", "2-3? B +"}},
		"a title that is cut":        {"--- " + strings.Repeat("é", 200), []string{"0-0? " + strings.Repeat("é", 126) + "…"}},
		"a line longer than is read": {"--- A" + strings.Repeat(" ", 10_000) + "\n::endgroup::", []string{"0-1? A"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, all := range [][]Piece{whole(stdout(c.log)), byteByByte(stdout(c.log))} {
				if groups, truncated := groupsOf(all); outline(groups) != strings.Join(c.want, "\n") || truncated {
					t.Errorf("got\n%s\nwant\n%s", outline(groups), strings.Join(c.want, "\n"))
				}
			}
		})
	}
}

// A group is of one channel: what others print between its marks, and their marks, do not matter to it. Open groups come up to the
// end of what their step has said.
func TestGroupsOfChannels(t *testing.T) {
	t.Parallel()
	out, err, next := channel{0, 1}, stderr(0), channel{1, 1}
	log := []said{
		out.says("--- Com"), err.says("+++ warn\n"), out.says("pile\n"), err.says("::endgroup::\n"), next.says("::group::N\n"),
		out.says("+"), err.says("x\n"), next.says("n\n::endgroup::\n"),
	}
	groups, _ := groupsOf(whole(log))
	if got, want := outline(groups), "0-5? Compile\n0-5? warn + @0.2\n3-6 N @1.1"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	at := func(offset int64) time.Time { return time.Unix(0, offset) }
	for i, want := range []Group{
		{Offset: 0, EndOffset: 48, Start: at(0), End: at(46)},
		{Offset: 7, EndOffset: 48, Start: at(7), End: at(46)},
		{Offset: 34, EndOffset: 50, Start: at(34), End: at(48)},
	} {
		if g := groups[i]; g.Offset != want.Offset || g.EndOffset != want.EndOffset || !g.Start.Equal(want.Start) || !g.End.Equal(want.End) {
			t.Errorf("got %+v, want %+v", g, want)
		}
	}
}

func TestGroupsAreBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		log       string
		groups    int
		open      int
		truncated bool
	}{
		"as many as may be": {strings.Repeat("::group::A\n", MaxGroups), MaxGroups, 1, false},
		"more":              {strings.Repeat("::group::A\n", MaxGroups+10), MaxGroups, 0, true},
		"as deep as may be": {strings.Repeat("section_start:1:a\n", maxDepth), maxDepth, maxDepth, false},
		"deeper":            {strings.Repeat("section_start:1:a\n", maxDepth+10) + "section_end:1:a\n", maxDepth, maxDepth - 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			groups, truncated := groupsOf(whole(stdout(c.log)))
			open := 0
			for _, g := range groups {
				if g.Open {
					open++
				}
			}
			if len(groups) != c.groups || open != c.open || truncated != c.truncated {
				t.Errorf("there are %d groups, %d open, truncated: %v; want %d, %d, %v", len(groups), open, truncated, c.groups, c.open, c.truncated)
			}
		})
	}
	g := NewGroups()
	for i := range 100 {
		g.Write(Piece{Offset: uint64(i) << 20, Data: bytes.Repeat([]byte(":"), 1<<20)})
	}
	if n := cap(g.channels[0].of.line.Text); n > 2*maxHead {
		t.Errorf("%d bytes of a line are kept", n)
	}
	g = NewGroups()
	for i := range 10 * maxChannels {
		g.Write(Piece{Offset: uint64(4 * i), Step: int32(i), Stream: 1, Data: []byte("--- A"[:4+i%2])})
	}
	if n := len(g.channels); n != maxChannels {
		t.Errorf("%d channels are known", n)
	}
	if groups, _ := g.End(); len(groups) != 5*maxChannels || !groups[0].Open || groups[0].EndOffset != 9 {
		t.Errorf("%d groups were found", len(groups))
	}
}

// checkGroups says what is true of the groups of any log.
func checkGroups(t fataler, all []Piece, groups []Group) {
	t.Helper()
	timeOf := func(offset uint64) time.Time {
		for _, p := range all {
			if offset < p.Offset+uint64(len(p.Data)) {
				return p.Time
			}
		}
		return time.Time{}
	}
	for i, g := range groups {
		switch {
		case g.Title != clean([]byte(g.Title)) || !utf8.ValidString(g.Title) || len(g.Title) > maxTitle:
			t.Fatalf("group %d has the title %q", i, g.Title)
		case g.EndOffset < g.Offset || g.EndLine < g.Line:
			t.Fatalf("group %d ends before it begins: %+v", i, g)
		case i > 0 && g.Offset < groups[i-1].Offset:
			t.Fatalf("group %d begins before the one before it: %+v", i, g)
		case !g.Start.Equal(timeOf(g.Offset)), !g.Open && !g.End.Equal(timeOf(g.EndOffset)):
			t.Fatalf("group %d is from %v to %v: %+v", i, g.Start, g.End, g)
		}
		depth := 0
		for _, o := range groups[:i] {
			inside := o.Step == g.Step && o.Stream == g.Stream && (o.Open || o.EndOffset > g.Offset)
			if inside {
				depth++
			}
			if inside && g.EndOffset > o.EndOffset {
				t.Fatalf("group %d ends after one in which it lies: %+v, %+v", i, g, o)
			}
		}
		if depth > g.Depth { // those that begin and end in one line are not seen here
			t.Fatalf("group %d lies in %d, not %d", i, depth, g.Depth)
		}
	}
}

// timeless are groups as one text, without the times, which are those of pieces.
func timeless(groups []Group) string {
	var out strings.Builder
	for _, g := range groups {
		g.Start, g.End = time.Time{}, time.Time{}
		fmt.Fprintf(&out, "%+v\n", g)
	}
	return out.String()
}

// Whatever the log and its cuts, the groups are the same.
func TestGroupsWhateverTheCuts(t *testing.T) {
	t.Parallel()
	texts := rapid.SampledFrom([]string{
		"\n", "\n", "\n", "\r\n", "a", "--- A\n", "+++ B\n", "~~~ C\n", "--- ", "+++ ", "*** ", "++ x\n", "@@ ", "::group::G\n", "::endgroup::\n", "\x1b[0K",
		"section_start:1:s\r", "section_end:1:s\r", "section_start:1:t[collapsed=true]\r\x1b[0K", "section_end:1:t\r\n", "\x1b[1m", "\xc3", "-", "+", ":",
	})
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t, texts)
		all := drawPieces(t, log)
		got, _ := groupsOf(all)
		checkGroups(t, all, got)
		want, _ := groupsOf(byteByByte(log))
		if timeless(got) != timeless(want) {
			t.Fatalf("%+v: got\n%s\nwant\n%s", log, timeless(got), timeless(want))
		}
	})
}

func FuzzGroups(f *testing.F) {
	f.Add(uint32(1), []byte("::group::a\n--- b\n\x02+++ c\n::endgroup::"))
	f.Add(uint32(5), []byte("\x1b[0Ksection_start:1:a[collapsed=true]\r\x1b[0Kb\nsection_end:1:a\r\x1b[0K\n~~~ \x1b]8;;\x07\xff"))
	f.Add(uint32(9), []byte("--- a\n+++ b\n@@\n++ x\n+++ y\n*** z\n--- z\n"))
	f.Fuzz(func(t *testing.T, seed uint32, data []byte) {
		if len(data) > 4<<10 {
			return
		}
		var log []said
		for i, part := range strings.Split(string(data), "\x02") {
			log = append(log, channel{0, uint8(i%2 + 1)}.says(part))
		}
		all := pieces(log, func(at int) bool { return uint32(at)*2654435761^seed < 1<<30 })
		got, _ := groupsOf(all)
		checkGroups(t, all, got)
		if want, _ := groupsOf(byteByByte(log)); timeless(got) != timeless(want) {
			t.Fatalf("%+v: got\n%s\nwant\n%s", log, timeless(got), timeless(want))
		}
	})
}
