package job_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

// inRange reports whether a version is of a range, as constraints see it.
func inRange(version, versions string) bool {
	c := constraint("v", job.OperatorVersion, versions)
	return c.Holds(map[string]string{"v": version})
}

// isRange reports whether a text is taken as a range.
func isRange(versions string) bool {
	_, err := job.New(job.ID{1}, spec(func(s *job.Spec) {
		s.Constraints = []job.Constraint{constraint("v", job.OperatorVersion, versions)}
	}), start)
	return err == nil
}

func TestRangesOfVersions(t *testing.T) {
	t.Parallel()
	for versions, cases := range map[string]struct{ in, out string }{
		"1.2.3":         {"1.2.3 v1.2.3 1.2.3+build", "1.2.4 1.2 1.2.3-rc1"},
		"=1.2":          {"1.2 1.2.0", "1.2.1 1.3"},
		">1":            {"1.0.1 2", "1 1.0.0 0.9 1.0.0-rc"},
		">=1.2, <2":     {"1.2 1.10.0 v1.2.0", "1.1.9 2 2.1 1.2-rc"},
		" >= 1.2 ,< 2 ": {"1.2 1.9", "2"},
		"<=2.1":         {"2.1 2.0.9 2.1.0-beta", "2.1.1"},
		"^1.4":          {"1.4 1.99.9", "1.3.9 2 2.0.0-rc.1 1.4.0-rc"},
		"^0.3.1":        {"0.3.1 0.3.9", "0.4 0.3.0 1"},
		"^0.0.3":        {"0.0.3", "0.0.4 0.1"},
		"^0.0":          {"0.0.0 0.0.9", "0.1"},
		"^0":            {"0 0.9.9", "1"},
		"~1.4":          {"1.4 1.4.9", "1.5 1.3 1.5.0-rc"},
		"~1.4.2":        {"1.4.2 1.4.3", "1.4.1 1.5"},
		"~1":            {"1 1.9", "2 0.9"},
		">=2.0.0-rc.2":  {"2.0.0-rc.2 2.0.0-rc.10 2 2.0.0-rc.2.1", "2.0.0-rc.1 2.0.0-alpha 2.0.0-rc 2.0.0-1"},
		"v1":            {"1", "2"},
	} {
		if !isRange(versions) {
			t.Errorf("%q is refused", versions)
		}
		for version := range strings.FieldsSeq(cases.in) {
			if !inRange(version, versions) {
				t.Errorf("%s is not in %q", version, versions)
			}
		}
		for version := range strings.FieldsSeq(cases.out) {
			if inRange(version, versions) {
				t.Errorf("%s is in %q", version, versions)
			}
		}
	}
	for _, none := range []string{"", ",", ">=1,", ">", "=>1", "1.2.3.4", "1..2", "-1", "x", ">=1 <2", "1.x", "99999999999", "1.2-"} {
		if isRange(none) {
			t.Errorf("%q is taken as a range", none)
		}
	}
	for _, none := range []string{"", "x", "1.2.3.4", "1.x", "-1", "1.0-", "+", "latest"} {
		if inRange(none, ">=0") {
			t.Errorf("%q is taken as a version", none)
		}
	}
}

// The order of semver.org, section 11.
func TestVersionsAreInTheOrderOfTheirStandard(t *testing.T) {
	t.Parallel()
	order := strings.Fields("1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1 1.1 2 2.1 11")
	for i, a := range order {
		for k, b := range order {
			if got := inRange(a, "<"+b); got != (i < k) {
				t.Errorf("%s < %s is %v", a, b, got)
			}
			if got := inRange(a, "="+b); got != (i == k) {
				t.Errorf("%s = %s is %v", a, b, got)
			}
		}
	}
}

// anyVersion makes versions of which many are alike.
func anyVersion() *rapid.Generator[string] {
	return rapid.StringMatching(`v?[0-2](\.[0-2](\.[0-2])?)?(-[0ab](\.(1|2|10|b))?)?(\+x)?`)
}

func TestVersionsHaveOneOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyVersion().Draw(t, "a"), anyVersion().Draw(t, "b"), anyVersion().Draw(t, "c")
		less, equal, more := inRange(a, "<"+b), inRange(a, "="+b), inRange(a, ">"+b)
		if btoi(less)+btoi(equal)+btoi(more) != 1 {
			t.Fatalf("%s and %s: less %v, equal %v, more %v", a, b, less, equal, more)
		}
		if inRange(b, ">"+a) != less || inRange(b, "="+a) != equal {
			t.Fatalf("%s and %s are in another order the other way round", a, b)
		}
		if inRange(a, "<="+b) != (less || equal) || inRange(a, ">="+b) != (more || equal) || inRange(a, b) != equal {
			t.Fatalf("%s and %s: the operators disagree", a, b)
		}
		if less && inRange(b, "<"+c) && !inRange(a, "<"+c) {
			t.Fatalf("%s < %s < %s", a, b, c)
		}
		for _, operator := range []string{"^", "~"} {
			if !inRange(a, operator+a) || inRange(a, operator+b) && less {
				t.Fatalf("%s%s or %s%s is wrong about %s", operator, a, operator, b, a)
			}
		}
		if inRange(a, "~"+b) && !inRange(a, "^"+b) && !strings.HasPrefix(strings.TrimPrefix(b, "v"), "0") {
			t.Fatalf("%s is of ~%s and not of ^%[2]s", a, b)
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Whatever two texts are: a version is either below a range's limit or not, and a range that is refused holds for nothing.
func FuzzVersions(f *testing.F) {
	for _, seed := range [][2]string{
		{"1.2.3-rc.1+b", ">=1.2, <2"},
		{"0.0.0-0.a.00", "^0.0"},
		{"v1", "~1"},
		{"", ","},
		{"1.2.3", "\xff"},
		{"4294967296", "<4294967295"},
		{"1-99999999999999999999999", ">1-9"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, version, versions string) {
		isVersion := inRange(version, ">=0-0") || inRange(version, "<0-0")
		if holds := inRange(version, versions); holds && !isVersion {
			t.Errorf("%q is no version and is in %q", version, versions)
		} else if holds && len(versions) <= 256 && strings.ToValidUTF8(versions, "") == versions && !strings.Contains(versions, "\x00") && !isRange(versions) {
			t.Errorf("%q is in %q, which is refused", version, versions)
		}
		if !strings.ContainsAny(versions, ",<>=^~") && isVersion && isRange(versions) {
			n := 0
			for _, operator := range []string{"<", "=", ">"} {
				n += btoi(inRange(version, operator+versions))
			}
			if n != 1 {
				t.Errorf("%q and %q: %d of <, = and > hold", version, versions, n)
			}
		}
	})
}
