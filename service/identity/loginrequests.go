package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/job"
)

// Limits of requests for logins: anybody may make one.
const (
	loginRequestLife = 15 * time.Minute
	maxLoginRequests = 1000
	maxFromAddress   = 10
)

// LoginRequest asks for a login that an administrator approves. Requests are in memory only: they do not outlive the server.
type LoginRequest struct {
	Code    string // of the key; what the one who asks tells the administrator
	User    string
	Address string
	Created time.Time
	Expires time.Time

	csr    []byte
	secret [sha256.Size]byte // hash of it
	denied bool
	issued *LoginCertificate // when it was approved
}

type loginRequests struct {
	mu     sync.Mutex
	byCode map[string]*LoginRequest
}

// RequestLogin notes a request, and returns it with the secret by which its outcome can be collected.
func (c *Credentials) RequestLogin(user, address string, csrDER []byte) (LoginRequest, string, error) {
	if err := access.CheckName(user); err != nil {
		return LoginRequest{}, "", err
	}
	key, err := requestedKey(csrDER)
	if err != nil {
		return LoginRequest{}, "", err
	}
	encoded, err := key.Bytes()
	if err != nil {
		return LoginRequest{}, "", err
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return LoginRequest{}, "", err
	}
	secret, now := base64.RawURLEncoding.EncodeToString(random), c.now().UTC()
	r := &LoginRequest{
		Code: codeOf(encoded), User: user, Address: address, Created: now, Expires: now.Add(loginRequestLife), csr: csrDER,
		secret: sha256.Sum256([]byte(secret)),
	}
	return *r, secret, c.requests.add(r, now)
}

// codeOf makes eight letters and digits of a key, in two halves, that people can compare.
func codeOf(key []byte) string {
	sum := sha256.Sum256(key)
	text := base32.StdEncoding.EncodeToString(sum[:5])
	return text[:4] + "-" + text[4:]
}

func (r *loginRequests) add(request *LoginRequest, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	same := 0
	for _, other := range r.byCode {
		if other.Address == request.Address {
			same++
		}
	}
	if len(r.byCode) >= maxLoginRequests || same >= maxFromAddress {
		return &job.Error{
			Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: time.Minute,
			Message: "too many requests for logins wait for a decision; try again when some have expired",
		}
	}
	if r.byCode[request.Code] != nil {
		return badRequest("csr_der: there is a request with this key already; make a new key")
	}
	r.byCode[request.Code] = request
	return nil
}

// forget removes the requests that have expired. r.mu is held.
func (r *loginRequests) forget(now time.Time) {
	maps.DeleteFunc(r.byCode, func(_ string, request *LoginRequest) bool { return !now.Before(request.Expires) })
}

// LoginRequests returns the requests that wait for a decision, the oldest first.
func (c *Credentials) LoginRequests() []LoginRequest {
	r := &c.requests
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(c.now())
	var all []LoginRequest
	for _, request := range r.byCode {
		if !request.denied && request.issued == nil {
			all = append(all, *request)
		}
	}
	slices.SortFunc(all, func(a, b LoginRequest) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Code, b.Code))
	})
	return all
}

// LoginRequest returns a request that waits for a decision. CodeNotFound when there is none.
func (c *Credentials) LoginRequest(code string) (LoginRequest, error) {
	return c.requests.pending(code, c.now(), func(*LoginRequest) {})
}

// pending finds a request that waits for a decision, has it changed, and returns it.
func (r *loginRequests) pending(code string, now time.Time, change func(*LoginRequest)) (LoginRequest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	request := r.byCode[strings.ToUpper(code)]
	if request == nil || request.denied || request.issued != nil {
		return LoginRequest{}, job.Errorf(job.CodeNotFound, job.ReasonNotFound,
			"no request for a login with the code %.32q waits; `hodei admin login requests` shows those that do", code)
	}
	change(request)
	return *request, nil
}

// ApproveLogin grants a request: a login that lasts for ttl, 30 days when it is 0.
func (c *Credentials) ApproveLogin(ctx context.Context, code, by string, ttl time.Duration) (Login, error) {
	ttl = cmp.Or(ttl, defaultLoginTTL)
	if ttl < 0 || ttl > maxLoginTTL {
		return Login{}, badRequest("ttl: a login may last up to %v, not %v", maxLoginTTL, ttl)
	}
	request, err := c.LoginRequest(code)
	if err != nil {
		return Login{}, err
	}
	issued, err := c.begin(ctx, Login{User: request.User, By: "approved by " + by, Expires: c.now().Add(ttl)}, request.csr)
	if err != nil {
		return Login{}, err
	}
	_, err = c.requests.pending(code, c.now(), func(r *LoginRequest) { r.issued = &issued })
	return issued.Login, err
}

// DenyLogin refuses a request.
func (c *Credentials) DenyLogin(code string) error {
	_, err := c.requests.pending(code, c.now(), func(r *LoginRequest) { r.denied = true })
	return err
}

// CollectLogin returns what has become of a request, by its secret: denied, or its certificate, which is given once, or neither while it
// waits. CodeNotFound when there is none, any more.
func (c *Credentials) CollectLogin(secret string) (issued *LoginCertificate, denied bool, err error) {
	hash := sha256.Sum256([]byte(secret))
	r := &c.requests
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(c.now())
	for code, request := range r.byCode {
		if request.secret != hash {
			continue
		}
		if request.denied || request.issued != nil {
			delete(r.byCode, code)
		}
		return request.issued, request.denied, nil
	}
	return nil, false, job.Errorf(job.CodeNotFound, job.ReasonNotFound, "the request for a login has expired, or was answered before; ask again")
}
