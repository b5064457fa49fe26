package chain_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/audit/chain"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 5_000_000, time.FixedZone("", 3600))

func TestLines(t *testing.T) {
	t.Parallel()
	var c chain.Chain
	seq, first := c.Append(chain.Entry{Actor: "anonymous", Action: "hodei.v1.JobService/ListJobs", Outcome: chain.Denied, Reason: "no certificate"}, noon)
	want := `{"seq":1,"time":"2026-03-01T11:00:00.005Z","actor":"anonymous","action":"hodei.v1.JobService/ListJobs","outcome":"denied",` +
		`"reason":"no certificate","prev":"` + strings.Repeat("0", 64) + `"}`
	if seq != 1 || string(first) != want {
		t.Errorf("got %d\n%s\nwant\n%s", seq, first, want)
	}
	_, hash := c.Last()
	seq, second := c.Append(chain.Entry{
		Actor: "user/ada", Credential: "certificate:00ff", Address: "[::1]:5", Action: "a/B", Namespace: "n", Targets: []string{"job_1", "job_2"},
		Outcome: chain.OK, Details: map[string]string{"z": "\"\\é\n\x1b\u009b\u202e", "a": "1"},
	}, noon.Add(time.Hour))
	want = `{"seq":2,"time":"2026-03-01T12:00:00.005Z","actor":"user/ada","credential":"certificate:00ff","address":"[::1]:5","action":"a/B",` +
		`"namespace":"n","targets":["job_1","job_2"],"outcome":"ok","details":{"a":"1","z":"\"\\é\u000a\u001b\u009b\u202e"},"prev":"` +
		fmt.Sprintf("%x", hash[:]) + `"}`
	if seq != 2 || string(second) != want {
		t.Errorf("got %d\n%s\nwant\n%s", seq, second, want)
	}
	if got := chain.Key(17); got != "00000000000000000017" {
		t.Errorf("the key of 17 is %s", got)
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	var c chain.Chain
	for n := range uint64(5) {
		_, line := c.Append(chain.Entry{Actor: "server", Action: "a", Outcome: chain.OK}, noon)
		resumed, err := chain.Resume(line)
		if seq, hash := resumed.Last(); err != nil || resumed != c || seq != n+1 || hash == (chain.Hash{}) {
			t.Errorf("after record %d: %+v, want %+v, %v", n+1, resumed, c, err)
		}
	}
	if _, err := chain.Resume([]byte(`{"seq":1}`)); err == nil {
		t.Error("a trail went on behind what is no record")
	}
}

// text draws texts of all sorts: long ones, control characters, what is not UTF-8.
func text() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"", "user/ada", "\x00", "\xff", "…", "\ud7ff\u202e", strings.Repeat("\x1b", 2000), strings.Repeat("é", 2000), strings.Repeat("\xff\xf0", 900)}),
		rapid.String(), rapid.Custom(func(r *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 700).Draw(r, "bytes")) }),
	)
}

func entry() *rapid.Generator[chain.Entry] {
	return rapid.Custom(func(r *rapid.T) chain.Entry {
		return chain.Entry{
			Actor: text().Draw(r, "actor"), Credential: text().Draw(r, "credential"), Address: text().Draw(r, "address"),
			Action: text().Draw(r, "action"), Namespace: text().Draw(r, "namespace"), Targets: rapid.SliceOfN(text(), 0, 40).Draw(r, "targets"),
			Outcome: text().Draw(r, "outcome"), Reason: text().Draw(r, "reason"),
			Details: rapid.MapOfN(text(), text(), 0, 20).Draw(r, "details"),
		}
	})
}

func TestAnyEntryGivesALineThatCanBeRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		var c chain.Chain
		e := entry().Draw(r, "entry")
		at := time.Unix(rapid.Int64().Draw(r, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(r, "nanoseconds"))
		_, line := c.Append(e, at)
		if len(line) > chain.MaxLine || !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x9b }) {
			r.Fatalf("%d bytes: %q", len(line), line)
		}
		got, err := chain.ParseRecord(line)
		if err != nil {
			r.Fatalf("%v\n%s", err, line)
		}
		// What was read is clean: it gives the same line.
		var again chain.Chain
		if _, second := again.Append(got.Entry, got.Time); !bytes.Equal(second, line) {
			r.Fatalf("got\n%s\nwant\n%s", second, line)
		}
		if year := at.UTC().Year(); year >= 0 && year <= 9999 && !got.Time.Equal(at) || len(got.Targets) != min(len(e.Targets), 16) {
			r.Fatalf("%v became %v, %q became %q", at, got.Time, e.Targets, got.Targets)
		}
	})
}

func TestTheLargestEntryFits(t *testing.T) {
	t.Parallel()
	for _, fill := range []string{"x", "\x00", "\"", "\xff", "é", "\U0001f600", "\u202e"} {
		long := strings.Repeat(fill, 5000)
		e := chain.Entry{Actor: long, Credential: long, Address: long, Action: long, Namespace: long, Outcome: long, Reason: long, Details: map[string]string{}}
		for n := range 100 {
			e.Targets = append(e.Targets, long)
			e.Details[fmt.Sprint(n, long)] = long
		}
		var c chain.Chain
		_, line := c.Append(e, noon)
		r, err := chain.ParseRecord(line)
		if err != nil || len(line) > chain.MaxLine || len(r.Details) != 8 {
			t.Fatalf("%q: %d bytes, %v: %s", fill, len(line), err, line)
		}
		if !strings.HasSuffix(r.Actor, "…") || len(r.Targets) != 16 || r.Targets[15] != "and 85 more" {
			t.Errorf("nothing says that something was cut: %s", line)
		}
	}
}

func TestDetailsThatBecomeTheSameCountOnce(t *testing.T) {
	t.Parallel()
	for range 20 { // whatever order the map gives
		var c chain.Chain
		_, line := c.Append(chain.Entry{Details: map[string]string{"\xff": "b", "\xfe": "a", "\U0001f600": "c"}}, noon)
		if want := `"details":{"` + "\ufffd" + `":"a","` + "\U0001f600" + `":"c"}`; !bytes.Contains(line, []byte(want)) {
			t.Fatalf("got %s", line)
		}
	}
}

func TestOnlyWhatTheServerWritesIsARecord(t *testing.T) {
	t.Parallel()
	var c chain.Chain
	_, line := c.Append(chain.Entry{Actor: "user/ada", Action: "a", Outcome: chain.OK, Details: map[string]string{"a": "b", "c": "d"}}, noon)
	c.Append(chain.Entry{}, noon)
	_, third := c.Append(chain.Entry{Actor: "user/ada", Action: "a", Targets: []string{"/"}, Outcome: chain.OK}, noon)
	for _, edit := range [][2]string{
		{`{"seq"`, `{ "seq"`},
		{`"seq":1`, `"seq":01`},
		{`"seq":1`, `"seq":1.0`},
		{`"seq":1`, `"seq":0`},
		{`"seq":1`, `"seq":1,"seq":1`},
		{`"seq":1`, `"Seq":1`},
		{`"seq":1`, `"seq":-1`},
		{`.005Z`, `.0050Z`},
		{`.005Z`, `,005Z`},
		{`.005Z`, `.005z`},
		{`Z"`, `+00:00"`},
		{`user`, `\u0075ser`},
		{`user/`, `user\/`},
		{`"outcome":"ok"`, `"outcome":"ok","x":1`},
		{`"outcome":"ok"`, `"outcome":"ok","reason":""`},
		{`"outcome":"ok"`, `"outcome":"ok","targets":[]`},
		{`"a":"b","c":"d"`, `"c":"d","a":"b"`},
		{`"a":"b"`, `"a":"x","a":"b"`},
		{`"ok"`, `null`},
		{`"prev":"0`, `"prev":"`},
		{`"}`, `"} `},
		{`"}`, `"}` + "\r"},
		{`"}`, `"}{}`},
		{`"user/ada"`, `"` + strings.Repeat("x", 161) + `"`},
		{`ada`, "a\xffa"},
		{string(line), ""},
		{string(line), "null"},
		{string(line), "[]"},
		{string(line), strings.Repeat("[", 10_000)},
	} {
		edited := strings.Replace(string(line), edit[0], edit[1], 1)
		if edited == string(line) {
			t.Fatalf("%q is not in %s", edit[0], line)
		}
		if r, err := chain.ParseRecord([]byte(edited)); err == nil {
			t.Errorf("%q for %q was read as %+v", edit[1], edit[0], r)
		}
	}
	upper := bytes.Replace(third, third[len(third)-66:], bytes.ToUpper(third[len(third)-66:]), 1)
	if _, err := chain.ParseRecord(upper); err == nil || bytes.Equal(upper, third) {
		t.Error("a hash in capital digits was read")
	}
}

func BenchmarkAppend(b *testing.B) {
	e := chain.Entry{
		Actor: "user/ada", Credential: "certificate:" + strings.Repeat("0f", 32), Address: "192.0.2.17:51234", Action: "hodei.v1.JobService/SubmitJob",
		Namespace: "default", Targets: []string{"job_01jz0000000000000000000000"}, Outcome: chain.OK, Details: map[string]string{"queue": "default", "jobs": "1"},
	}
	b.ReportAllocs()
	var c chain.Chain
	for b.Loop() {
		c.Append(e, noon)
	}
}

func BenchmarkParse(b *testing.B) {
	var c chain.Chain
	_, line := c.Append(chain.Entry{Actor: "user/ada", Action: "hodei.v1.JobService/SubmitJob", Targets: []string{"job_01jz0000000000000000000000"}, Outcome: chain.OK}, noon)
	for b.Loop() {
		if _, err := chain.ParseRecord(line); err != nil {
			b.Fatal(err)
		}
	}
}
