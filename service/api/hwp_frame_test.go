package api

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/job"
)

func zstdOf(t testing.TB, data []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return encoder.EncodeAll(data, nil)
}

func TestChunksAreDecoded(t *testing.T) {
	t.Parallel()
	const plain, packed = hwpv1.LogEncoding_LOG_ENCODING_UNSPECIFIED, hwpv1.LogEncoding_LOG_ENCODING_ZSTD
	text := bytes.Repeat([]byte("line\n"), 1000)
	for name, c := range map[string]struct {
		data     []byte
		encoding hwpv1.LogEncoding
		want     []byte // nil: refused
	}{
		"plain":          {text, plain, text},
		"compressed":     {zstdOf(t, text), packed, text},
		"cut off":        {zstdOf(t, text)[:10], packed, nil},
		"no frame":       {text, packed, nil},
		"nothing in it":  {zstdOf(t, nil), packed, nil},
		"too large":      {zstdOf(t, make([]byte, maxChunkBytes+1)), packed, nil},
		"of another age": {text, 99, nil},
	} {
		got, err := chunkData(&hwpv1.LogChunk{Data: c.data, Encoding: c.encoding})
		if c.want == nil && job.CodeOf(err) != job.CodeInvalid || !bytes.Equal(got, c.want) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
	}
}

// Whatever an agent sends, the server neither crashes nor takes more memory than a chunk may have.
func FuzzChunkData(f *testing.F) {
	f.Add(zstdOf(f, []byte("some text")))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := chunkData(&hwpv1.LogChunk{Data: data, Encoding: hwpv1.LogEncoding_LOG_ENCODING_ZSTD})
		if len(got) > maxChunkBytes || err == nil && len(got) == 0 {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}
