package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clientPython is what the Python client is tested with; scripts/clienttools makes it.
const clientPython = "../clients/python/.venv/bin/python"

// Whoever has gRPC's own library needs nothing of ours but the protos.
func TestPlainGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	stubs := t.TempDir()
	protos := []string{"hodei/v1/job.proto", "hodei/v1/job_service.proto", "hodei/v1/log_service.proto", "hodei/policy/v1/policy.proto", "buf/validate/validate.proto"}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), clientPython, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run(append([]string{
		"-m", "grpc_tools.protoc", "-I", "../proto", "-I", "../third_party/protovalidate", "--python_out=" + stubs, "--grpc_python_out=" + stubs,
	}, protos...)...)
	tls := filepath.Join(w.dir, "tls")
	out := run("testdata/grpcio.py", stubs, strings.TrimPrefix(w.url, "https://"),
		filepath.Join(tls, "ca.pem"), filepath.Join(tls, "admin.pem"), filepath.Join(tls, "admin-key.pem"))
	if want := "from gRPC\nNOT_FOUND there is no job"; !strings.HasPrefix(out, want) {
		t.Errorf("it printed %q, want %q first", out, want)
	}
}

// One port speaks the three protocols, and reads are GETs that curl can make.
func TestEveryProtocolOnOnePort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	tls := filepath.Join(w.dir, "tls")
	id := w.submit("--", "true")
	w.awaitJob(id, "SUCCEEDED")
	files := []string{"--cacert", filepath.Join(tls, "ca.pem"), "--cert", filepath.Join(tls, "admin.pem"), "--key", filepath.Join(tls, "admin-key.pem")}
	for _, protocol := range []string{"connect", "grpc", "grpcweb"} {
		args := append([]string{"curl", "--protocol", protocol, "-d", `{"id": "` + id + `"}`}, files...)
		cmd := exec.CommandContext(t.Context(), "../.bin/buf", append(args, w.url+"/hodei.v1.JobService/GetJob")...)
		cmd.Stderr = os.Stderr
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "JOB_STATE_SUCCEEDED") {
			t.Errorf("by %s: %v %s", protocol, err, out)
		}
	}
	get := append([]string{"-sS", "--get", "--data-urlencode", "encoding=json", "--data-urlencode", `message={"id":"` + id + `"}`}, files...)
	for _, version := range []string{"--http2", "--http1.1"} {
		out, err := exec.CommandContext(t.Context(), "curl", append(get, version, w.url+"/hodei.v1.JobService/GetJob")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "JOB_STATE_SUCCEEDED") {
			t.Errorf("curl %s: %v %s", version, err, out)
		}
	}
}
