package chain

import (
	"strings"
	"unicode/utf8"
)

// ellipsis stands for what was cut off.
const ellipsis = "…"

// clean makes a text valid UTF-8 that takes at most limit bytes between the quotes of a line. Of what it returns it changes nothing,
// so that a line that was read gives the same line again.
func clean(s string, limit int) string {
	if len(s) <= limit && plain(s) {
		return s
	}
	n, cut := 0, 0 // bytes in the line so far; where the text ends if it has to be cut
	for i, r := range s {
		if n <= limit-len(ellipsis) {
			cut = i
		}
		if n += quotedLen(r); n > limit {
			return strings.ToValidUTF8(s[:cut], string(utf8.RuneError)) + ellipsis
		}
	}
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}

// plain reports whether a text stands in a line as it is, byte by byte.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// escaped reports whether a line has a character by its number: those that would do something to the terminal on which an export is
// looked at, or make a text look like another. The set must never change, for the lines that were written before.
func escaped(r rune) bool {
	return r < ' ' || 0x7f <= r && r <= 0x9f || 0x2028 <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069
}

func quotedLen(r rune) int {
	switch {
	case r == '"' || r == '\\':
		return 2
	case escaped(r):
		return 6
	}
	return utf8.RuneLen(r)
}

// quote appends a clean text as a JSON string.
func quote(dst []byte, s string) []byte {
	dst = append(dst, '"')
	if plain(s) {
		return append(append(dst, s...), '"')
	}
	const digits = "0123456789abcdef"
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case escaped(r):
			dst = append(dst, '\\', 'u', digits[r>>12], digits[r>>8&15], digits[r>>4&15], digits[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
