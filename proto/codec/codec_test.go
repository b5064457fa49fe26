package codec_test

import (
	"bytes"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/proto/codec"
)

func submits() *hodeiv1.SubmitJobsRequest {
	return &hodeiv1.SubmitJobsRequest{RequestId: "r", Requests: []*hodeiv1.SubmitJobRequest{{Spec: &hodeiv1.JobSpec{
		Name: "n", Labels: map[string]string{"a": "b"}, Priority: -5, Steps: []*hodeiv1.Step{
			{Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: []string{"echo", "ö"}}}},
			{Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: "true", Shell: []string{"sh"}}}},
		},
	}}}}
}

func frame() *hwpv1.ConnectRequest {
	return &hwpv1.ConnectRequest{
		Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: &hwpv1.LogChunk{Data: []byte{0, 255}, Offset: 1 << 60}}}},
		Reports:  []*hwpv1.AttemptReport{{Attempt: &hwpv1.AttemptRef{JobId: "j", Attempt: 1, Epoch: 1 << 63}, Step: -1}},
	}
}

// Whoever reads and whoever writes, the usual way or the quick one: it is the same message.
func TestBothWaysAreTheSame(t *testing.T) {
	t.Parallel()
	usual, quick := codec.New(), codec.New(&hodeiv1.SubmitJobsRequest{}, &hwpv1.ConnectRequest{})
	for _, want := range []proto.Message{submits(), frame(), &hwpv1.ConnectRequest{}} {
		for _, writer := range []*codec.Codec{usual, quick} {
			for _, reader := range []*codec.Codec{usual, quick} {
				for _, w := range []interface {
					io.Writer
					Bytes() []byte
				}{new(bytes.Buffer), &plainWriter{}} {
					if err := writer.MarshalWrite(t.Context(), w, want); err != nil {
						t.Fatal(err)
					}
					got := want.ProtoReflect().New().Interface()
					if err := reader.UnmarshalRead(t.Context(), bytes.NewReader(w.Bytes()), got); err != nil || !proto.Equal(got, want) {
						t.Fatalf("got %v, want %v, %v", got, want, err)
					}
				}
			}
		}
	}
}

// plainWriter has no room to encode in place.
type plainWriter struct{ b []byte }

func (w *plainWriter) Write(p []byte) (int, error) { w.b = append(w.b, p...); return len(p), nil }
func (w *plainWriter) Bytes() []byte               { return w.b }

// Whatever arrives, nothing breaks, and what is read can be written and read again.
func FuzzUnmarshal(f *testing.F) {
	for _, m := range []proto.Message{submits(), frame()} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	quick := codec.New(&hodeiv1.SubmitJobsRequest{}, &hwpv1.ConnectRequest{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, first := range []proto.Message{&hodeiv1.SubmitJobsRequest{}, &hwpv1.ConnectRequest{}} {
			if quick.UnmarshalRead(t.Context(), bytes.NewReader(data), first) != nil {
				continue
			}
			var b bytes.Buffer
			if err := quick.MarshalWrite(t.Context(), &b, first); err != nil {
				t.Fatal(err)
			}
			second := first.ProtoReflect().New().Interface()
			if err := quick.UnmarshalRead(t.Context(), &b, second); err != nil || !proto.Equal(first, second) {
				t.Fatalf("%x gave %v, then %v, %v", data, first, second, err)
			}
		}
	})
}
