package main

import (
	"bytes"
	"testing"
)

func TestTerminalSequencesThatDoThingsAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"text":              {"plain\ttext\r\nand ünicode\a\b", "plain\ttext\r\nand ünicode\a\b"},
		"colours":           {"\x1b[1;31mred\x1b[0m \x1b[38:5:1mx", "\x1b[1;31mred\x1b[0m \x1b[38:5:1mx"},
		"a progress bar":    {"\r\x1b[K50 %\x1b[2A\x1b[1G", "\r\x1b[K50 %\x1b[2A\x1b[1G"},
		"a title":           {"a\x1b]0;title\ab", "ab"},
		"the clipboard":     {"a\x1b]52;c;aGk=\x1b\\b", "ab"},
		"an answer":         {"a\x1b[6nb\x1b[cd", "abd"},
		"a mode":            {"a\x1b[?1000hb", "ab"},
		"a device string":   {"a\x1bP$q\x1bz\x1b\x1b\\b", "ab"},
		"a character set":   {"a\x1b(0b", "ab"},
		"a reset":           {"a\x1bcb", "ab"},
		"bytes of no text":  {"a\x00\x01\x7fb", "ab"},
		"no sequence's end": {"a\x1b[31", "a"},
		"a broken one":      {"a\x1b[31\nb", "a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var whole, cut bytes.Buffer
			f := &sequenceFilter{w: &whole}
			if n, err := f.Write([]byte(c.text)); err != nil || n != len(c.text) {
				t.Fatal(n, err)
			}
			f = &sequenceFilter{w: &cut}
			for i := range len(c.text) {
				if _, err := f.Write([]byte{c.text[i]}); err != nil {
					t.Fatal(err)
				}
			}
			if whole.String() != c.want || cut.String() != c.want {
				t.Errorf("got %q and byte by byte %q, want %q", &whole, &cut, c.want)
			}
		})
	}
}
