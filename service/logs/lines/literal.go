package lines

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxLiterals is how many texts are looked for at a time; each is a scan of its own.
const maxLiterals = 8

// literals are texts of which every match of an expression has at least one.
type literals struct {
	texts  [][]byte // none: nothing is known
	folded bool     // they are in lower case, and to be looked for in text that is
}

// shortest is how well a set tells lines apart: the length of the text that is found most easily.
func (l literals) shortest() int {
	n := 0
	for i, text := range l.texts {
		if i == 0 || len(text) < n {
			n = len(text)
		}
	}
	return n
}

// required returns the best set of literals that an expression is known to need.
func required(re *syntax.Regexp) literals {
	switch re.Op { //nolint:exhaustive // of the others nothing is known
	case syntax.OpLiteral:
		return longestRun(re.Rune, re.Flags&syntax.FoldCase != 0)
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		var best literals
		for _, sub := range re.Sub {
			if l := required(sub); l.shortest() > best.shortest() {
				best = l
			}
		}
		return best
	case syntax.OpAlternate:
		var all literals
		for _, sub := range re.Sub {
			l := required(sub)
			if len(l.texts) == 0 || len(all.texts)+len(l.texts) > maxLiterals {
				return literals{}
			}
			all.texts, all.folded = slices.Concat(all.texts, l.texts), all.folded || l.folded
		}
		return all
	}
	return literals{}
}

// longestRun is the longest part of a literal that has only one form in bytes, or one in lower case. The letters k and s have
// others than ASCII ones that are equal to them, and U+FFFD is every byte that is not UTF-8.
func longestRun(text []rune, folded bool) literals {
	var best, run []byte
	for _, r := range text {
		switch {
		case r == utf8.RuneError, folded && (r >= utf8.RuneSelf || strings.ContainsRune("kKsS", r)):
			run = nil
		default:
			run = utf8.AppendRune(run, r)
		}
		if len(run) > len(best) {
			best = run
		}
	}
	if len(best) == 0 {
		return literals{}
	}
	return literals{[][]byte{best}, folded}
}
