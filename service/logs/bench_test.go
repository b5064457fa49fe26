package logs

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// buildOutput is what a build prints: lines of a few kinds with names, numbers and hashes in them.
func buildOutput(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	words := []string{
		"scheduler", "queue", "worker", "parser", "codec", "session", "router", "config", "handler", "storage", "index", "cache", "buffer",
		"token", "stream", "metrics", "planner", "cursor", "commit", "journal", "lexer", "window", "socket", "registry", "matrix", "layout",
	}
	word := func() string { return words[random.IntN(len(words))] }
	out := make([]byte, 0, size+200)
	for n := 0; len(out) < size; n++ {
		switch random.IntN(12) {
		case 0, 1, 2, 3:
			out = fmt.Appendf(out, "[%4d/9120] Building CXX object src/%s/CMakeFiles/%s.dir/%s_%s.cpp.o\n", n%9120, word(), word(), word(), word())
		case 4, 5:
			out = fmt.Appendf(out, "ok  \texample.com/project/internal/%s/%s\t%d.%03ds\n", word(), word(), random.IntN(30), random.IntN(1000))
		case 6:
			out = fmt.Appendf(out, "src/%s/%s.cpp:%d:%d: warning: unused variable '%s_%s' [-Wunused-variable]\n",
				word(), word(), 1+random.IntN(900), 1+random.IntN(80), word(), word())
		case 7:
			out = fmt.Appendf(out, "2026-03-%02dT%02d:%02d:%02d.%03dZ INFO  [%s] %s took %dms\n", 1+random.IntN(28), random.IntN(24),
				random.IntN(60), random.IntN(60), random.IntN(1000), word(), word(), random.IntN(5000))
		case 8:
			out = fmt.Appendf(out, "Downloaded %s-%s v%d.%d.%d (sha256:%016x%016x)\n", word(), word(), random.IntN(9), random.IntN(40),
				random.IntN(20), random.Uint64(), random.Uint64())
		case 9:
			out = fmt.Appendf(out, "--- PASS: Test%s%s%d (%d.%02ds)\n", word(), word(), random.IntN(100), random.IntN(3), random.IntN(100))
		case 10:
			out = fmt.Appendf(out, "  npm http fetch GET 200 https://registry.example.com/%s-%s %dms (cache %s)\n", word(), word(),
				random.IntN(900), []string{"hit", "miss", "revalidated"}[random.IntN(3)])
		default:
			out = append(out, "make[2]: Entering directory '/home/builder/project/build'\n"...)
		}
	}
	return out[:size]
}

// benchService is a running service on a store on the disk.
func benchService(b *testing.B) *Service {
	b.Helper()
	db, err := pebblestore.Open(b.TempDir(), pebblestore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s := New(db, noMetrics{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// appendAll sends a log in chunks, some of them under way at once, as agents do.
func appendAll(b *testing.B, s *Service, ref store.LogRef, data []byte, chunkBytes, underWay int) {
	b.Helper()
	acks := make(chan struct{}, underWay)
	for range underWay {
		acks <- struct{}{}
	}
	for offset := 0; offset < len(data); offset += chunkBytes {
		<-acks
		a := &Append{
			Chunks: []Chunk{{
				Ref: ref, Offset: uint64(offset), Stream: store.Stdout, Time: time.Unix(1_700_000_000, int64(offset)*997),
				Data: data[offset:min(offset+chunkBytes, len(data))],
			}},
			Done: func([]Ack) { acks <- struct{}{} },
		}
		if err := s.Append(a); err != nil {
			b.Fatal(err)
		}
	}
	for range underWay {
		<-acks
	}
}

// BenchmarkAppend measures chunks of 32 KiB, with a full window of an agent under way.
func BenchmarkAppend(b *testing.B) {
	s := benchService(b)
	data := buildOutput(1, 8<<20)
	b.SetBytes(int64(len(data)))
	n := int32(0)
	for b.Loop() {
		n++
		appendAll(b, s, store.LogRef{Job: testRef.Job, Attempt: n}, data, 32<<10, WindowBytes/(32<<10))
	}
}

// BenchmarkStored measures how many bytes are stored for one of output, in large chunks and in small ones that were sealed.
func BenchmarkStored(b *testing.B) {
	for _, c := range []struct {
		name        string
		size, chunk int
	}{
		{"large chunks", 16 << 20, 1 << 20},
		{"100 bytes a commit", 1 << 20, 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				s, store := newKeeper()
				data := buildOutput(2, c.size)
				for offset := 0; offset < len(data); offset += c.chunk {
					commitTo(b, s, []Chunk{{
						Ref: testRef, Offset: uint64(offset), Stream: 1, Time: time.Unix(1_700_000_000, int64(offset)*1_234_567),
						Data: data[offset:min(offset+c.chunk, len(data))],
					}})
				}
				before := storedBytesOf(b, store)
				commitTo(b, s, nil, endOf(len(data)))
				sealEverything(s)
				b.ReportMetric(float64(before)/float64(len(data)), "before-the-end/raw")
				b.ReportMetric(float64(storedBytesOf(b, store))/float64(len(data)), "stored/raw")
			}
		})
	}
}

func endOf(size int) store.LogEnd { return store.LogEnd{Ref: testRef, Bytes: uint64(size)} }

func storedBytesOf(b *testing.B, s store.Logs) (n int) {
	b.Helper()
	for _, block := range blocksIn(b, s, testRef) {
		n += len(block.Data)
	}
	return n
}

// BenchmarkOffsetOfLine finds line 900,000 of a log of 100 MiB and more than a million lines, and reads the first page from there.
func BenchmarkOffsetOfLine(b *testing.B) {
	s := benchService(b)
	data := buildOutput(3, 100<<20)
	appendAll(b, s, testRef, data, 32<<10, WindowBytes/(32<<10))
	state, err := s.State(b.Context(), testRef)
	if err != nil {
		b.Fatal(err)
	}
	const line = 900_000
	for b.Loop() {
		offset, err := s.OffsetOfLine(b.Context(), testRef, line)
		if err != nil {
			b.Fatal(err)
		}
		tail, err := s.Tail(b.Context(), testRef, offset)
		if err != nil {
			b.Fatal(err)
		}
		if chunks, _, _, err := tail.Read(b.Context()); err != nil || len(chunks) == 0 {
			b.Fatal(err)
		}
		tail.Close()
	}
	b.ReportMetric(float64(state.Lines), "lines")
}

// BenchmarkCodec measures a full block.
func BenchmarkCodec(b *testing.B) {
	chunks := []Chunk{{Ref: testRef, Stream: store.Stdout, Time: time.Unix(1, 0), Data: buildOutput(4, blockBytes)}}
	block, err := testCodec.encode(chunks, new(position))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(blockBytes)
		b.ReportMetric(float64(len(block.Data))/blockBytes, "stored/raw")
		for b.Loop() {
			if _, err := testCodec.encode(chunks, new(position)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(blockBytes)
		for b.Loop() {
			if _, err := testCodec.decode(&block); err != nil {
				b.Fatal(err)
			}
		}
	})
}
