package chain

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func FuzzParseRecord(f *testing.F) {
	for _, line := range newTrail(1, 5, 100).lines {
		f.Add(line)
	}
	for _, line := range []string{"", "null", `{"seq":1}`, `{"seq":18446744073709551615,"time":"0000-01-01T00:00:00Z","actor":"","action":"","outcome":"","prev":""}`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRecord(line)
		if err != nil {
			return
		}
		if again := r.append(nil); !bytes.Equal(again, line) || len(line) > MaxLine {
			t.Errorf("got\n%s\nwant\n%s", again, line)
		}
		if c, err := Resume(line); err != nil || c.seq != r.Seq || c.hash != sha256.Sum256(line) {
			t.Errorf("the trail goes on with %+v, %v", c, err)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	good := newTrail(1, 1, 1).checkpoints[0]
	f.Add(good)
	f.Add(Checkpoint{Seq: 7}.Sign(keyOf("other")))
	f.Add([]byte(checkpointStart + "1}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := ParseCheckpoint(line, serverPub)
		if (err == nil) != bytes.Equal(line, good) { // nobody else has the key
			t.Errorf("%s was read as %+v, %v", line, c, err)
		}
		if c, signature, err := decodeCheckpoint(line); err == nil && !bytes.Equal(appendSignature(c.append(nil), signature), line) {
			t.Errorf("it is not written as it was read: %s", line)
		}
	})
}

func FuzzVerify(f *testing.F) {
	tr := newTrail(1, 4, 2)
	export, apart := file(tr.lines...), file(tr.checkpoints...)
	f.Add(export, []byte(nil))
	f.Add(file(tr.records()...), apart)
	f.Add(export[:200], apart[:100])
	f.Add([]byte("\n\n"), []byte("{}\n"))
	f.Fuzz(func(t *testing.T, records, checkpoints []byte) {
		r, err := Verify(bytes.NewReader(records), bytes.NewReader(checkpoints), serverPub)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Problems) > maxProblems || len(r.Warnings) > maxProblems+1 || r.More > 0 && len(r.Problems) < maxProblems {
			t.Errorf("%d problems, %d more, %d warnings", len(r.Problems), r.More, len(r.Warnings))
		}
		// What is vouched for is what was written: the beginning of the export, to the byte.
		if r.OK() && r.Vouched > 0 && r.Records > 0 && r.First == 1 {
			if all := tr.records(); r.Vouched > uint64(len(all)) || !bytes.HasPrefix(records, all[0]) {
				t.Errorf("somebody else's records are vouched for: %+v\n%s", r, records)
			}
		}
	})
}
