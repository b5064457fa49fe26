package service

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

func sortStreams(streams []*hwpv1.StreamTotal) {
	slices.SortFunc(streams, func(a, b *hwpv1.StreamTotal) int {
		return cmp.Or(cmp.Compare(a.GetStep(), b.GetStep()), cmp.Compare(a.GetStream(), b.GetStream()))
	})
}

// counted is the value of a counter of the server.
func (r *running) counted(t *testing.T, name string) int {
	t.Helper()
	families, err := r.telemetry.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return int(sum)
}

const (
	refusedOutput = "hodei_output_refused_total"
	staleReports  = "hodei_stale_reports_total"
)

// A rogue agent says everything that the protocol has, about everything that is not its own: nothing of it counts, and all jobs end as they
// do when it keeps quiet.
func TestRogueAgentChangesNothingOfOthers(t *testing.T) {
	t.Parallel()
	quiet := newField(t)
	quiet.finish()
	want := quiet.outcome()

	f := newField(t)
	refused, stale := f.r.counted(t, refusedOutput), f.r.counted(t, staleReports)
	output, reports := f.lieAboutAll(f.own)
	f.own.settle()
	if got := f.r.counted(t, refusedOutput) - refused; got != output || output < 1000 {
		t.Errorf("%d pieces of output of others were refused, and %d were sent", got, output)
	}
	await(t, "the reports to be counted", func() bool { return f.r.counted(t, staleReports)-stale >= reports })
	if got := f.r.counted(t, staleReports) - stale; got != reports || reports < 1000 {
		t.Errorf("%d reports about others were stale, and %d were sent", got, reports)
	}
	for _, ack := range f.own.know().logAcks {
		if id := ack.GetAttempt().GetJobId(); id != f.ids["own"].String() && id != f.ids["former"].String() {
			t.Errorf("output of job %s was acknowledged to the rogue: %v", id, ack)
		}
	}
	f.misbehave()
	f.claimAll()
	f.flood()
	if n := len(f.ada.know().cancels) + len(f.bob.know().cancels); n > 0 {
		t.Errorf("the honest agents were told to stop %d times", n)
	}
	f.finish()
	if got := f.outcome(); got != want {
		t.Errorf("the jobs ended otherwise than without the rogue:\n%s\nwithout it:\n%s", got, want)
	}
}

// lies say something wrong about an attempt, for each kind of message that there is.
func (f *field) lies() map[protoreflect.Name]func(ref *hwpv1.AttemptRef) []*hwpv1.AgentMessage {
	once := func(m *hwpv1.AgentMessage) func(*hwpv1.AttemptRef) []*hwpv1.AgentMessage {
		return func(*hwpv1.AttemptRef) []*hwpv1.AgentMessage { return []*hwpv1.AgentMessage{m} }
	}
	return map[protoreflect.Name]func(ref *hwpv1.AttemptRef) []*hwpv1.AgentMessage{
		"register":            func(*hwpv1.AttemptRef) []*hwpv1.AgentMessage { return nil }, // see claimAll and misbehave
		"certificate_request": func(*hwpv1.AttemptRef) []*hwpv1.AgentMessage { return nil }, // see misbehave
		"heartbeat":           once(heartbeat()),                                            // which names nobody
		"drain":               once(drain(false)),
		"token_request":       once(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_TokenRequest{TokenRequest: &hwpv1.TokenRequest{}}}),
		"usage": func(ref *hwpv1.AttemptRef) []*hwpv1.AgentMessage {
			return []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Usage{Usage: &hwpv1.Usage{Attempt: ref, MilliCpu: 1 << 30, MemoryMib: 1 << 30}}}}
		},
		"log_chunk": func(ref *hwpv1.AttemptRef) (all []*hwpv1.AgentMessage) {
			for _, offset := range []uint64{0, 5, 1 << 63, math.MaxUint64} {
				for _, packed := range []bool{false, true} {
					all = append(all, chunk(ref, offset, []byte("a lie\n"), packed))
				}
			}
			return all
		},
		"log_end": func(ref *hwpv1.AttemptRef) (all []*hwpv1.AgentMessage) {
			for _, end := range []*hwpv1.LogEnd{
				{TotalBytes: 0},
				{TotalBytes: 5},
				{TotalBytes: math.MaxUint64},
				{Missing: "all of it"},
				{Streams: []*hwpv1.StreamTotal{{Step: -1, Stream: 99, TotalBytes: math.MaxUint64, Sha256: make([]byte, 99)}}},
			} {
				end.Attempt = ref
				all = append(all, &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogEnd{LogEnd: end}})
			}
			return all
		},
	}
}

func chunk(ref *hwpv1.AttemptRef, offset uint64, data []byte, packed bool) *hwpv1.AgentMessage {
	c := &hwpv1.LogChunk{
		JobId: ref.GetJobId(), Attempt: ref.GetAttempt(), Epoch: ref.GetEpoch(), Stream: hwpv1.LogStream_LOG_STREAM_STDOUT, Offset: offset,
		Step: 1, Timestamp: math.MaxInt64, Data: data,
	}
	if packed {
		c.Data, c.Encoding = pack(data), hwpv1.LogEncoding_LOG_ENCODING_ZSTD
	}
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: c}}
}

func pack(data []byte) []byte {
	return packer().EncodeAll(data, nil)
}

var packer = sync.OnceValue(func() *zstd.Encoder {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) //nolint:forbidigo // the options are constants
	}
	return encoder
})

// falseReports say that an attempt has ended, or goes on, in every way that there is.
func falseReports(ref *hwpv1.AttemptRef) (all []*hwpv1.AttemptReport) {
	outcomes := []*hwpv1.Outcome{nil, {Kind: 99}}
	kinds := hwpv1.OutcomeKind(0).Descriptor().Values()
	for i := range kinds.Len() {
		outcomes = append(outcomes, &hwpv1.Outcome{Kind: hwpv1.OutcomeKind(kinds.Get(i).Number()), ExitCode: 1, Signal: "SIGKILL", Message: "a lie"})
	}
	now := time.Now().UnixNano()
	for _, outcome := range outcomes {
		steps := []*hwpv1.StepReport{{Step: 0, StartTime: now, EndTime: now, Outcome: outcome}, {Step: 1, StartTime: math.MinInt64}, {Step: -1, EndTime: 1}}
		all = append(all,
			&hwpv1.AttemptReport{Attempt: ref, Steps: steps, EndTime: now, Outcome: outcome, Step: 1, Silent: true, Masked: map[string]uint64{"LIE": 1}},
			&hwpv1.AttemptReport{Attempt: ref, EndTime: math.MaxInt64, Outcome: outcome, Step: math.MaxInt32, LogBytes: math.MaxUint64},
			&hwpv1.AttemptReport{Attempt: ref, Steps: steps})
	}
	return all
}

// lieAboutAll sends every kind of message about every attempt that is another's, and returns how many pieces of output and reports these were.
func (f *field) lieAboutAll(s *hwpStream) (output, reports int) {
	f.t.Helper()
	lies, kinds := f.lies(), (&hwpv1.AgentMessage{}).ProtoReflect().Descriptor().Oneofs().ByName("payload").Fields()
	for i := range kinds.Len() {
		if lies[kinds.Get(i).Name()] == nil {
			f.t.Errorf("no rogue agent sends %q; add to this test what one would say with it", kinds.Get(i).Name())
		}
	}
	fields := (&hwpv1.ConnectRequest{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).Name(); name != "messages" && name != "reports" && name != "send_time" {
			f.t.Errorf("no rogue agent sends a frame with %q; add to this test what one would say with it", name)
		}
	}
	for _, ref := range f.others() {
		frame := &hwpv1.ConnectRequest{Reports: falseReports(ref)}
		for _, lie := range lies {
			for _, m := range lie(ref) {
				frame.Messages = append(frame.Messages, m)
				if m.GetLogChunk() != nil || m.GetLogEnd() != nil {
					output++
				}
			}
		}
		reports += len(frame.GetReports())
		s.send(frame)
	}
	return output, reports
}

// misbehave breaks every rule of the protocol, on a stream each, which ends with the right error; the next one is taken as if nothing was.
func (f *field) misbehave() {
	f.t.Helper()
	own := f.works["own"].ref
	begin := func(change func(*hwpv1.Register)) *hwpv1.ConnectRequest {
		register := f.eve.register(own)
		if change != nil {
			change(register)
		}
		return &hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Register{Register: register}}}}
	}
	after := func(messages ...*hwpv1.AgentMessage) func() []*hwpv1.ConnectRequest {
		return func() []*hwpv1.ConnectRequest { return []*hwpv1.ConnectRequest{begin(nil), {Messages: messages}} }
	}
	only := func(frame *hwpv1.ConnectRequest) func() []*hwpv1.ConnectRequest {
		return func() []*hwpv1.ConnectRequest { return []*hwpv1.ConnectRequest{frame} }
	}
	registering := func(change func(*hwpv1.Register)) func() []*hwpv1.ConnectRequest {
		return func() []*hwpv1.ConnectRequest { return []*hwpv1.ConnectRequest{begin(change)} }
	}
	foreign := f.works["running"].ref
	strange := func(change func(*hwpv1.LogChunk)) *hwpv1.AgentMessage {
		m := chunk(foreign, 0, []byte("x"), false)
		change(m.GetLogChunk())
		return m
	}
	zeros := pack(make([]byte, 1<<20))
	invalid := connect.CodeInvalidArgument
	for name, wrong := range map[string]struct {
		frames func() []*hwpv1.ConnectRequest
		code   connect.Code
	}{
		"Register twice": {func() []*hwpv1.ConnectRequest { return []*hwpv1.ConnectRequest{begin(nil), begin(nil)} }, invalid},
		"output first":   {only(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{chunk(foreign, 0, []byte("x"), false)}}), invalid},
		"a report first": {only(&hwpv1.ConnectRequest{Reports: falseReports(foreign)}), invalid},
		"nothing first":  {only(&hwpv1.ConnectRequest{}), invalid},
		"another version": {
			registering(func(r *hwpv1.Register) { r.ProtocolVersion = 2 }), connect.CodeFailedPrecondition,
		},
		"a connection that was overtaken": {registering(func(r *hwpv1.Register) { r.Dial = 1 }), connect.CodeFailedPrecondition},
		"an attempt of no job": {
			registering(func(r *hwpv1.Register) { r.Attempts = append(r.Attempts, &hwpv1.AttemptRef{JobId: "../../etc"}) }), invalid,
		},
		"a description too long": {
			registering(func(r *hwpv1.Register) { r.Features = slices.Repeat([]string{"feature"}, 10_000) }), invalid,
		},
		"output of no job":     {after(strange(func(c *hwpv1.LogChunk) { c.JobId = "job_" })), invalid},
		"no stream":            {after(strange(func(c *hwpv1.LogChunk) { c.Stream = 99 })), invalid},
		"no encoding":          {after(strange(func(c *hwpv1.LogChunk) { c.Encoding = 99 })), invalid},
		"broken Zstandard":     {after(strange(func(c *hwpv1.LogChunk) { c.Encoding, c.Data = 1, zeros[:len(zeros)/2] })), invalid},
		"no Zstandard":         {after(strange(func(c *hwpv1.LogChunk) { c.Encoding, c.Data = 1, []byte("plain") })), invalid},
		"a chunk that bursts":  {after(chunk(foreign, 0, make([]byte, 2<<20), true)), invalid},
		"a frame that bursts":  {after(slices.Repeat([]*hwpv1.AgentMessage{strange(func(c *hwpv1.LogChunk) { c.Encoding, c.Data = 1, zeros })}, 20_000)...), invalid},
		"a frame too large":    {after(chunk(foreign, 0, make([]byte, 5<<20), false)), connect.CodeUnavailable},
		"a request for RSA":    {after(certificateRequest(csrFor(f.t, rsaKey(f.t), &x509.CertificateRequest{}))), invalid},
		"a request of garbage": {after(certificateRequest([]byte("garbage"))), invalid},
	} {
		s := f.eve.stream()
		for _, frame := range wrong.frames() {
			s.send(frame)
		}
		if err := s.ends(name); connect.CodeOf(err) != wrong.code {
			f.t.Errorf("%s: the stream ended with %v, want %v", name, err, wrong.code)
		}
	}
	f.otherIdentity()
}

func certificateRequest(csr []byte) *hwpv1.AgentMessage {
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_CertificateRequest{CertificateRequest: &hwpv1.CertificateRequest{CsrDer: csr}}}
}

func csrFor(t *testing.T, key crypto.Signer, request *x509.CertificateRequest) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// otherIdentity asks for a certificate of another worker, of the administrator and of an authority at once: the answer is one of eve's own.
func (f *field) otherIdentity() {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	ca, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		f.t.Fatal(err)
	}
	wish := csrFor(f.t, key, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin", Organization: []string{"system"}}, DNSNames: []string{"localhost"},
		URIs: []*url.URL{
			{Scheme: "spiffe", Host: "hodei", Path: "/agent/" + f.worker("ada")}, {Scheme: "spiffe", Host: "hodei", Path: "/user/admin"},
		},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: ca}},
	})
	s := f.eve.session(f.works["own"].ref)
	s.say(certificateRequest(wish))
	s.await("a certificate", func(h *heard) bool { return len(h.chains) > 0 })
	got, err := x509.ParseCertificate(s.know().chains[0].GetChainDer()[0])
	if err != nil {
		f.t.Fatal(err)
	}
	now, err := x509.ParseCertificate(f.eve.certificate.Certificate[0])
	if err != nil {
		f.t.Fatal(err)
	}
	sameURI := len(got.URIs) == 1 && got.URIs[0].String() == now.URIs[0].String()
	if got.IsCA || got.KeyUsage&x509.KeyUsageCertSign != 0 || !sameURI || got.Subject.CommonName != now.Subject.CommonName || len(got.DNSNames) > 0 ||
		!slices.Equal(got.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		f.t.Errorf("a certificate for %q and %v was signed, CA: %v", got.Subject, got.URIs, got.IsCA)
	}
}

func (f *field) worker(name string) string {
	f.t.Helper()
	w, err := f.r.jobs.Worker(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(w.ID)
}

// claimAll begins a session with the attempts of everybody: the server says the same of all as of one that there is not, and takes no output.
func (f *field) claimAll() {
	f.t.Helper()
	own, had := f.works["own"].ref, f.works["former/1"].ref
	s := f.eve.session(append(f.others(), own)...)
	for _, v := range s.know().welcome.GetVerdicts() {
		want := hwpv1.Verdict_VERDICT_FORGET
		switch {
		case proto.Equal(v.GetAttempt(), own):
			want = hwpv1.Verdict_VERDICT_KEEP
		case proto.Equal(v.GetAttempt(), had):
			want = hwpv1.Verdict_VERDICT_CANCEL
		}
		if v.GetVerdict() != want || want == hwpv1.Verdict_VERDICT_FORGET && (v.GetLogOffset() != 0 || v.GetLogEnded()) {
			f.t.Errorf("of %v the rogue was told %v", v.GetAttempt(), v)
		}
	}
	if len(s.know().assigned) > 0 {
		f.t.Errorf("the rogue was given %v", s.know().assigned)
	}
	f.lieAboutAll(s)
	s.settle()
	for _, ack := range s.know().logAcks {
		if ack.GetAttempt().GetJobId() != had.GetJobId() || ack.GetAttempt().GetAttempt() != had.GetAttempt() {
			f.t.Errorf("output was acknowledged to the rogue: %v", ack)
		}
	}
	f.own, f.works["own"].s = s, s
}

// flood sends a million chunks and thousands of wishes for tokens: the server neither keeps them nor does much for them.
func (f *field) flood() {
	f.t.Helper()
	const frames, perFrame = 200, 5000
	heap := func() int {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc >> 20)
	}
	runtime.GC()
	begin, most := heap(), 0
	before := f.r.counted(f.t, refusedOutput)
	frame := &hwpv1.ConnectRequest{Messages: slices.Repeat([]*hwpv1.AgentMessage{chunk(f.works["running"].ref, 0, []byte("x"), false)}, perFrame)}
	for range frames {
		f.own.send(frame)
		most = max(most, heap()-begin)
	}
	f.own.settle()
	if got := f.r.counted(f.t, refusedOutput) - before; got != frames*perFrame {
		f.t.Errorf("%d of %d chunks were refused", got, frames*perFrame)
	}
	if most > 256 {
		f.t.Errorf("a million chunks took %d MiB", most)
	}
	started, had := time.Now(), len(f.own.know().tokens)
	for range 2000 {
		f.own.say(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_TokenRequest{TokenRequest: &hwpv1.TokenRequest{}}})
	}
	f.own.settle()
	if got, atMost := len(f.own.know().tokens)-had, 2+int(time.Since(started).Seconds()); got > atMost {
		f.t.Errorf("the server signed %d tokens in %v", got, time.Since(started))
	}
	f.t.Logf("%d chunks were refused, and the heap grew by up to %d MiB", frames*perFrame, most)
}

// Connect takes an agent's token on the connection to whose certificate it is bound, and nothing else.
func TestOnlyAgentsWithTheirOwnTokensConnect(t *testing.T) {
	t.Parallel()
	r := start(t, Config{})
	eve, ada := r.enrol(t, "eve"), r.enrol(t, "ada")
	answer, err := ada.client.Authenticate(t.Context(), &hwpv1.AuthenticateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	token := answer.GetToken().GetToken()
	admin, err := tls.LoadX509KeyPair(r.AdminCredentials().Certificate, r.AdminCredentials().Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		token       string
		code        connect.Code
	}{
		"another agent's token":                              {eve.certificate, token, connect.CodeUnauthenticated},
		"an agent's token and no certificate":                {nil, token, connect.CodeUnauthenticated},
		"an agent's token of the administrator's connection": {&admin, token, connect.CodeUnauthenticated},
		"half a token of the agent, with its certificate":    {ada.certificate, token[:len(token)/2], connect.CodeUnauthenticated},
	} {
		s := openStream(t, r.hwpClient(t, c.certificate), c.token)
		s.send(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Register{Register: ada.register()}}}})
		if err := s.ends(name); connect.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, certificate := range map[string]*tls.Certificate{"the administrator": &admin, "a user": r.userCertificate(t, "mallory"), "an agent": ada.certificate} {
		client := r.hwpClient(t, certificate)
		stream, err := client.Connect(t.Context())
		if err == nil {
			_ = stream.SendHeaders() // why it failed is received
			_, err = stream.Receive()
		}
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s by certificate alone: %v", name, err)
		}
		if name == "an agent" {
			continue
		}
		if _, err := client.Authenticate(t.Context(), &hwpv1.AuthenticateRequest{}); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s got an agent's token: %v", name, err)
		}
	}
	ada.session() // which gets in
}
