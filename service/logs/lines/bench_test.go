package lines

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// build is 100 MB of the output of a build.
func build(prefix string, pieceBytes int) []Piece {
	var out bytes.Buffer
	for i := 0; out.Len() < 100<<20; i++ {
		fmt.Fprintf(&out, "%scompiling src/module%d/file_%x.cc: warning: unused variable 'x%d' [-Wunused-variable] (%d ms)\n", prefix, i%77, i*2654435761, i, i%991)
		if i%100_000 == 50_000 {
			fmt.Fprintf(&out, "::group::Part %d\nlinking\nundefined reference to `x%d'\n::endgroup::\n", i, i)
		}
	}
	var all []Piece
	for at := 0; at < out.Len(); at += pieceBytes {
		all = append(all, Piece{Offset: uint64(at), Stream: 1, Data: out.Bytes()[at:min(at+pieceBytes, out.Len())]})
	}
	return all
}

func bytesOf(all []Piece) (n int64) {
	for _, p := range all {
		n += int64(len(p.Data))
	}
	return n
}

func BenchmarkSearch(b *testing.B) {
	large, small := build("", 256<<10), build("", 4<<10)
	for _, c := range []struct {
		name string
		q    Query
	}{
		{"rare word in small pieces", Query{Text: "undefined reference"}},
		{"rare word", Query{Text: "undefined reference"}},
		{"no word", Query{Text: "segmentation fault"}},
		{"rare word in any case", Query{Text: "Undefined Reference", IgnoreCase: true}},
		{"rare word with context", Query{Text: "undefined reference", Before: 10, After: 10}},
		{"rare word with all context", Query{Text: "undefined reference", Before: 100, After: 100}},
		{"frequent word", Query{Text: "warning"}},
		{"frequent word with context", Query{Text: "warning", Before: 3, After: 3}},
		{"pattern with a literal", Query{Pattern: `undefined \w+ to .x\d+`}},
		{"pattern with three literals", Query{Pattern: `(?i)\b(error|fatal|undefined)\b`}},
		{"pattern with a frequent literal", Query{Pattern: `module7\d/.*\(99\d ms`}},
		{"pattern without a literal", Query{Pattern: `[A-Z]{3}[0-9]`}},
		{"anchored pattern without a literal", Query{Pattern: `^[a-z]+$`}},
	} {
		all := large
		if strings.Contains(c.name, "small") {
			all = small
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(bytesOf(all))
			b.ReportAllocs()
			c.q.MaxMatches = 1000
			for b.Loop() {
				s, err := NewSearch(c.q)
				if err != nil {
					b.Fatal(err)
				}
				for _, p := range all {
					s.Write(p)
				}
				s.End()
			}
		})
	}
}

func BenchmarkGroups(b *testing.B) {
	for _, c := range []struct{ name, prefix string }{{"plain", ""}, {"colored", "\x1b[32mok\x1b[0m "}, {"lines that begin as marks", "- "}} {
		all := build(c.prefix, 256<<10)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(bytesOf(all))
			b.ReportAllocs()
			for b.Loop() {
				g := NewGroups()
				for _, p := range all {
					g.Write(p)
				}
				g.End()
			}
		})
	}
}
