package e2e

import (
	"errors"
	"path/filepath"
	"testing"

	"connectrpc.com/connect/v2"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// client connects as the administrator, at an address that may be that of a proxy.
func (w *world) client(url string) *hodei.Client {
	w.t.Helper()
	tls := filepath.Join(w.dir, "tls")
	c, err := hodei.New(w.t.Context(), hodei.WithConfig(hodei.Config{
		URL: url, CA: filepath.Join(tls, "ca.pem"), Cert: filepath.Join(tls, "admin.pem"), Key: filepath.Join(tls, "admin-key.pem"),
	}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// shellJob is a job of one script.
func shellJob(script string, args ...string) *hodeiv1.JobSpec {
	return &hodeiv1.JobSpec{Steps: []*hodeiv1.Step{{Action: &hodeiv1.Step_Command{
		Command: &hodeiv1.Command{Argv: append([]string{"sh", "-c", script}, args...)},
	}}}}
}

// refusal is the code of an answer that the server itself gave, and 0 when nobody knows what became of the call.
func refusal(err error) connect.Code {
	var wire *connect.Error
	if !errors.As(err, &wire) || !wire.IsRemote() {
		return 0
	}
	switch wire.Code() {
	case connect.CodeNotFound, connect.CodeFailedPrecondition, connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		return wire.Code()
	}
	return 0
}

// A request_id stands for one body, also after the server was killed.
func TestRequestIDIsGoodForOneBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	jobs := w.client(w.url).Raw.Jobs
	first, err := jobs.SubmitJob(t.Context(), &hodeiv1.SubmitJobRequest{RequestId: "once", Spec: shellJob("true")})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := jobs.SubmitJob(t.Context(), &hodeiv1.SubmitJobRequest{RequestId: "once", Spec: shellJob("true")})
		if err != nil || again.GetJob().GetId() != first.GetJob().GetId() {
			t.Errorf("the same again gave %v, %v; want %s", again, err, first.GetJob().GetId())
		}
		_, err = jobs.SubmitJob(t.Context(), &hodeiv1.SubmitJobRequest{RequestId: "once", Spec: shellJob("false")})
		if refusal(err) != connect.CodeInvalidArgument {
			t.Errorf("another body gave %v", err)
		}
		w.server.kill()
		w.restart()
	}
}
