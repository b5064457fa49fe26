package service

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
)

// running is a server that serves until the test ends.
type running struct {
	*Server
	dir   string
	roots *x509.CertPool
}

func start(t *testing.T, config Config) *running {
	t.Helper()
	config.DataDir, config.Listen, config.OpsListen = t.TempDir(), "127.0.0.1:0", "-"
	s, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	r := &running{Server: s, dir: config.DataDir, roots: x509.NewCertPool()}
	ca, err := os.ReadFile(s.AdminCredentials().CA)
	if err != nil || !r.roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the CA: %v", err)
	}
	return r
}

// client is an HTTP/2 client with a certificate, or none.
func (r *running) client(t *testing.T, certificate *tls.Certificate) *http.Client {
	t.Helper()
	security := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: r.roots}
	if certificate != nil {
		security.Certificates = []tls.Certificate{*certificate}
	}
	transport := &http.Transport{TLSClientConfig: security, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// certificate signs a certificate as the server's authority does.
func (r *running) certificate(t *testing.T, sign func(csr []byte) (identity.Issued, error)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := sign(csr)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: issued.Chain, PrivateKey: key}
}

func (r *running) userCertificate(t *testing.T, user string) *tls.Certificate {
	t.Helper()
	return r.certificate(t, func(csr []byte) (identity.Issued, error) { return r.authority.SignUser(csr, user, nil, "", time.Hour) })
}

// bodyFor encodes a request that is valid, about a namespace and things that are not there.
func bodyFor(t *testing.T, m protoreflect.MethodDescriptor) []byte {
	t.Helper()
	body, err := proto.Marshal(fill(dynamicpb.NewMessage(m.Input()), 0))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func fill(msg *dynamicpb.Message, depth int) *dynamicpb.Message {
	texts := map[protoreflect.Name]string{
		"namespace": "other", "name": "name", "subject": "user/ada", "role": "viewer", "permission": "jobs.read", "value": "value", "code": "code",
	}
	if string(msg.Descriptor().FullName()) == "hodei.v1.SetSecretRequest" {
		texts["name"] = "NAME"
	}
	fields := msg.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch text := texts[field.Name()]; {
		case text != "" && field.Kind() == protoreflect.StringKind && !field.IsList():
			msg.Set(field, protoreflect.ValueOfString(text))
		case text != "" && field.Kind() == protoreflect.BytesKind:
			msg.Set(field, protoreflect.ValueOfBytes([]byte(text)))
		case field.Message() == nil || field.IsMap() || depth > 1 || !strings.HasPrefix(string(field.Message().FullName()), "hodei."):
		case field.IsList():
			msg.Mutable(field).List().Append(protoreflect.ValueOfMessage(fill(dynamicpb.NewMessage(field.Message()), depth+1)))
		case field.ContainingOneof() == nil:
			msg.Set(field, protoreflect.ValueOfMessage(fill(dynamicpb.NewMessage(field.Message()), depth+1)))
		}
	}
	return msg
}

// try calls a method, and returns the code of the error as Connect has it; empty when there is none.
func try(t *testing.T, client *http.Client, url string, m protoreflect.MethodDescriptor, authorization ...string) string {
	t.Helper()
	contentType := "application/proto"
	body := bodyFor(t, m)
	stream := m.IsStreamingClient() || m.IsStreamingServer()
	if stream {
		contentType = "application/connect+proto"
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/"+string(m.Parent().FullName())+"/"+string(m.Name()), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	for _, value := range authorization {
		request.Header.Add("Authorization", value)
	}
	response, err := client.Do(request)
	if err != nil {
		return "handshake" // with TLS 1.3 a client learns late that it was refused, in one way or another
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var problem struct {
		Code  string
		Error struct{ Code string }
	}
	if stream && len(answer) > 5 && response.StatusCode == http.StatusOK {
		answer = answer[5:]
	}
	if json.Unmarshal(answer, &problem) != nil {
		return ""
	}
	return problem.Code + problem.Error.Code
}

// everyMethod are all RPCs of the protos, and the proofs that each takes.
func everyMethod(t *testing.T) map[protoreflect.MethodDescriptor][]policyv1.Authentication {
	t.Helper()
	all := make(map[protoreflect.MethodDescriptor][]policyv1.Authentication)
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if name := string(f.Package()); strings.HasPrefix(name, "hodei.") || strings.HasPrefix(name, "hwp.") {
			for i := range f.Services().Len() {
				for k := range f.Services().Get(i).Methods().Len() {
					m := f.Services().Get(i).Methods().Get(k)
					rule, _ := proto.GetExtension(m.Options().(*descriptorpb.MethodOptions), policyv1.E_Access).(*policyv1.AccessRule)
					all[m] = rule.GetAuthentication()
				}
			}
		}
		return true
	})
	return all
}

// signingKey is the key with which the server signs access tokens.
func (r *running) signingKey(t *testing.T) (key ed25519.PrivateKey, id string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "tls", "token-keys.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key = parsed.(ed25519.PrivateKey) //nolint:forcetypeassert // no other is there
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return key, hex.EncodeToString(sum[:8])
}

// Every method, tried by everybody who may not: with nothing, with every sort of token that is no good, with the right token on the wrong
// connection, with what was revoked, and with rights elsewhere. Each is refused with the right code, and leaves a record.
func TestStrangersAreRefusedEverywhere(t *testing.T) {
	t.Parallel()
	r := start(t, Config{Limits: Limits{Calls: -1, StrangerCalls: -1}})
	ctx := t.Context()
	admin := &access.Caller{Subjects: []string{access.Administrator}}
	// elsewhere holds everything, but in a namespace that no request here is about.
	_, err := r.identity.access.CreateBinding(ctx, admin, access.Binding{Subject: "user/elsewhere", Role: "admin", Namespace: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	key, kid := r.signingKey(t)
	eve, mallory := r.userCertificate(t, "eve"), r.userCertificate(t, "mallory")
	if _, err := r.identity.credentials.Revoke(ctx, "user/mallory", "test", "user/admin"); err != nil {
		t.Fatal(err)
	}
	thumbprint := func(c *tls.Certificate) string {
		sum := sha256.Sum256(c.Certificate[0])
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	token := func(method jwt.SigningMethod, key any, change map[string]any) string {
		claims := jwt.MapClaims{"iss": "hodei", "aud": "hodei", "sub": "user/admin", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
		maps.Copy(claims, change)
		maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
		unsigned := jwt.NewWithClaims(method, claims)
		unsigned.Header["kid"] = kid
		text, err := unsigned.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + text
	}
	ed := jwt.SigningMethodEdDSA
	bound := token(ed, key, map[string]any{"cnf": map[string]any{"x5t#S256": thumbprint(eve)}, "sub": "user/eve"})
	type stranger struct {
		certificate   *tls.Certificate
		authorization []string
		code          string
	}
	unknown := "unauthenticated"
	strangers := map[string]stranger{
		"no identity":                 {nil, nil, unknown},
		"Bearer nothing":              {nil, []string{"Bearer nothing"}, unknown},
		"Bearer and nothing":          {nil, []string{"Bearer "}, unknown},
		"Basic":                       {nil, []string{"Basic YWRtaW46YWRtaW4="}, unknown},
		"two headers":                 {nil, []string{token(ed, key, nil), token(ed, key, nil)}, unknown},
		"expired":                     {nil, []string{token(ed, key, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})}, unknown},
		"no exp":                      {nil, []string{token(ed, key, map[string]any{"exp": nil})}, unknown},
		"alg none":                    {nil, []string{token(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil)}, unknown},
		"HS256 with the public key":   {nil, []string{token(jwt.SigningMethodHS256, []byte(key.Public().(ed25519.PublicKey)), nil)}, unknown},
		"wrong audience":              {nil, []string{token(ed, key, map[string]any{"aud": "other"})}, unknown},
		"no audience":                 {nil, []string{token(ed, key, map[string]any{"aud": nil})}, unknown},
		"bound token, no certificate": {nil, []string{bound}, unknown},
		"bound token, another certificate": {
			r.userCertificate(t, "eve"), []string{bound}, unknown,
		},
		"token of another than the certificate": {eve, []string{token(ed, key, nil)}, unknown},
		"revoked":                               {mallory, nil, "handshake"},
		"token of somebody revoked":             {nil, []string{token(ed, key, map[string]any{"sub": "user/mallory"})}, unknown},
		"no rights":                             {eve, nil, "permission_denied"},
		"rights in another namespace":           {r.userCertificate(t, "elsewhere"), nil, "permission_denied"},
		"an agent": {r.certificate(t, func(csr []byte) (identity.Issued, error) {
			return r.authority.SignAgent(csr, "wkr_1", 1)
		}), nil, "permission_denied"},
	}
	methods := everyMethod(t)
	calls, denied := 0, 0
	for name, s := range strangers {
		client := r.client(t, s.certificate)
		for m, proofs := range methods {
			open := slices.Contains(proofs, policyv1.Authentication_AUTHENTICATION_NONE)
			if open || excepted(name, m, proofs) {
				continue
			}
			calls++
			got := try(t, client, r.URL(), m, s.authorization...)
			if got != s.code {
				t.Errorf("%s by %q: %q", m.FullName(), name, got)
			}
			if got != "handshake" {
				denied++
			}
		}
	}
	t.Logf("%d methods, %d kinds of strangers: %d calls, all refused", len(methods), len(strangers), calls)
	if len(methods) < 50 || calls < 900 {
		t.Errorf("only %d methods and %d calls", len(methods), calls)
	}
	lines, err := r.store.ListRecords(ctx, chain.Kind)
	if err != nil {
		t.Fatal(err)
	}
	recorded := 0
	for _, l := range lines {
		record, err := chain.ParseRecord(l.Value)
		if err != nil {
			t.Fatal(err)
		}
		if record.Outcome == chain.Denied {
			recorded++
		}
	}
	if recorded != denied {
		t.Errorf("%d requests were denied, and %d records say so", denied, recorded)
	}
}

// excepted are the pairs in which the stranger is none: whoever has proved who they are may ask about themselves, and what is about any namespace may be
// asked by those with rights in one.
func excepted(name string, m protoreflect.MethodDescriptor, proofs []policyv1.Authentication) bool {
	rule, _ := proto.GetExtension(m.Options().(*descriptorpb.MethodOptions), policyv1.E_Access).(*policyv1.AccessRule)
	agents := slices.Contains(proofs, policyv1.Authentication_AUTHENTICATION_AGENT_CERTIFICATE)
	switch name {
	case "an agent":
		return agents
	case "no rights":
		return rule.GetScope() == policyv1.Scope_SCOPE_SELF && !strings.HasPrefix(string(m.FullName()), "hwp.")
	case "rights in another namespace":
		// A job that is not there is of no namespace.
		named := m.Input().Fields().ByName("id") != nil || m.Input().Fields().ByName("job_id") != nil
		return rule.GetScope() == policyv1.Scope_SCOPE_ANY_NAMESPACE || named || excepted("no rights", m, proofs)
	}
	return false
}
