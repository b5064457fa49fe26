package api

import (
	"context"
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/access"
)

// BenchmarkAuthorize is what a call costs before its handler begins, and the handler's question whether its caller may: the proof is
// verified, looked up among what is revoked, and held against the policy. There are a thousand bindings and as many revocations.
func BenchmarkAuthorize(b *testing.B) {
	w := newWorld(b)
	for i := range 1000 {
		w.grant(b, fmt.Sprintf("user/somebody-%d", i), "viewer", "default")
		if _, err := w.config.Credentials.Revoke(b.Context(), fmt.Sprintf("user/former-%d", i), "", access.Administrator); err != nil {
			b.Fatal(err)
		}
	}
	w.grant(b, "user/ada", "viewer", "default")
	info := &connect.CallInfo{PeerAddr: "192.0.2.1:1234"}
	info.RequestHeader().Set("Authorization", "Bearer "+w.token(b, "ada"))
	ctx, spec := w.servedCall(b, hodeiv1connect.JobServiceListJobsProcedure, info)
	asked := 0
	serve := w.gate.interceptor(func(ctx context.Context, _ connect.Spec, _ connect.ServerStream) error {
		asked++
		_, err := within(ctx, "default")
		return err
	})
	b.ReportAllocs()
	for b.Loop() {
		if err := serve(ctx, spec, nil); err != nil {
			b.Fatal(err)
		}
	}
	if asked == 0 {
		b.Fatal("nobody was asked")
	}
}

// servedCall is what an interceptor is called with.
func (w *world) servedCall(b *testing.B, procedure string, info *connect.CallInfo) (ctx context.Context, spec connect.Spec) {
	b.Helper()
	server := connect.NewServer(func(connect.ServerFunc) connect.ServerFunc {
		return func(c context.Context, s connect.Spec, _ connect.ServerStream) error {
			ctx, spec = c, s
			return nil
		}
	})
	hodeiv1connect.RegisterJobServiceHandler(server, &jobService{jobs: w.config.Jobs})
	if err := server.Call(b.Context(), procedure, info, &exchange{}); err != nil {
		b.Fatal(err)
	}
	return ctx, spec
}
