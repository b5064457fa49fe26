package job

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// A range of versions is a list of comparisons with commas between them, all of which must hold: "=1.2.3", ">1", ">=1.2", "<2",
// "<=2.1", "^1.4" (from 1.4 up to the next change that breaks: below 2) and "~1.4" (from 1.4 up to the next minor one: below 1.5; of
// "~1", which names none, below 2). Versions are those of semver.org; parts that are left out are 0, a "v" before them is taken. A
// pre-release comes before its release, but is none of the versions that "^" and "~" allow when its release is not.

// version is a version, taken apart.
type version struct {
	numbers [3]uint64
	given   int    // how many of them were written
	pre     string // what follows a "-", without a "+" and what comes after it
}

func parseVersion(s string) (version, bool) {
	var v version
	s, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(s), "v"), "+")
	s, pre, isPre := strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) > len(v.numbers) || isPre && pre == "" {
		return v, false
	}
	v.pre, v.given = pre, len(parts)
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return v, false
		}
		v.numbers[i] = n
	}
	return v, true
}

// compare orders versions. One with a pre-release comes before the same one without.
func (v version) compare(w version) int {
	for i := range v.numbers {
		if c := cmp.Compare(v.numbers[i], w.numbers[i]); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	return comparePre(v.pre, w.pre)
}

// comparePre orders pre-releases part by part: numbers by size and before words, and the shorter one first.
func comparePre(a, b string) int {
	for {
		left, moreLeft, inLeft := strings.Cut(a, ".")
		right, moreRight, inRight := strings.Cut(b, ".")
		n, errN := strconv.ParseUint(left, 10, 64)
		m, errM := strconv.ParseUint(right, 10, 64)
		var c int
		switch {
		case errN == nil && errM == nil:
			c = cmp.Compare(n, m)
		case errN == nil:
			c = -1
		case errM == nil:
			c = 1
		default:
			c = cmp.Compare(left, right)
		}
		switch {
		case c != 0:
			return c
		case !inLeft && !inRight:
			return 0
		case !inLeft:
			return -1
		case !inRight:
			return 1
		}
		a, b = moreLeft, moreRight
	}
}

// sameUpTo reports whether two versions have the same parts up to one of them.
func (v version) sameUpTo(w version, part int) bool {
	return slices.Equal(v.numbers[:part+1], w.numbers[:part+1])
}

// breaking is the part of which a change breaks what worked: the first one that is not 0, or the last that was written.
func (v version) breaking() int {
	for i, n := range v.numbers[:v.given] {
		if n != 0 {
			return i
		}
	}
	return v.given - 1
}

// comparison is one comparison of a range.
type comparison struct {
	operator string
	version  version
}

func parseComparison(s string) (comparison, bool) {
	s = strings.TrimSpace(s)
	for _, operator := range [...]string{">=", "<=", ">", "<", "=", "^", "~"} {
		if rest, ok := strings.CutPrefix(s, operator); ok {
			v, ok := parseVersion(rest)
			return comparison{operator, v}, ok
		}
	}
	v, ok := parseVersion(s)
	return comparison{"=", v}, ok
}

func (c *comparison) holds(v version) bool {
	order := v.compare(c.version)
	switch c.operator {
	case ">=":
		return order >= 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case "<":
		return order < 0
	case "^":
		return order >= 0 && v.sameUpTo(c.version, c.version.breaking())
	case "~":
		return order >= 0 && v.sameUpTo(c.version, min(c.version.given, 2)-1)
	default:
		return order == 0
	}
}

func isVersionRange(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		if _, ok := parseComparison(part); !ok {
			return false
		}
	}
	return true
}

// versionIn reports whether a text is a version of a range.
func versionIn(text, versions string) bool {
	v, ok := parseVersion(text)
	if !ok {
		return false
	}
	for part := range strings.SplitSeq(versions, ",") {
		if c, ok := parseComparison(part); !ok || !c.holds(v) {
			return false
		}
	}
	return true
}
