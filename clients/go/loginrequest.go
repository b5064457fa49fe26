package hodei

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// askAgain is how often is asked whether an administrator has decided.
const askAgain = 5 * time.Second

// PendingLogin is a login that an administrator has to approve.
type PendingLogin struct {
	Code    string    // what the administrator approves; to be told to them
	Expires time.Time // when the request is forgotten

	options LoginOptions
	key     *ecdsa.PrivateKey
	secret  string
	every   time.Duration
}

// RequestLogin asks for a login as a user. The options' proofs are not looked at: the approval is the proof.
func RequestLogin(ctx context.Context, options LoginOptions, user string) (*PendingLogin, error) {
	c, err := options.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	key, csr, err := newKey()
	if err != nil {
		return nil, err
	}
	res, err := c.bare.RequestLogin(ctx, &hodeiv1.RequestLoginRequest{User: user, CsrDer: csr})
	if err != nil {
		return nil, c.translate(err)
	}
	return &PendingLogin{
		Code: res.GetCode(), Expires: res.GetExpireTime().AsTime(),
		options: options, key: key, secret: res.GetSecret(), every: askAgain,
	}, nil
}

// CollectLogin waits until an administrator has decided, and stores the certificate as Login does. The certificate is given
// once: when the answer is lost on its way, there must be a new request.
func (p *PendingLogin) CollectLogin(ctx context.Context) (Config, error) {
	c, err := p.options.client()
	if err != nil {
		return Config{}, err
	}
	defer c.Close()
	for {
		var res *hodeiv1.CollectLoginResponse
		err := c.retry(ctx, func() (err error) {
			res, err = c.bare.CollectLogin(ctx, &hodeiv1.CollectLoginRequest{Secret: p.secret})
			return err
		})
		wait := p.every
		var failed *Error
		switch {
		case errors.As(err, &failed) && failed.RetryAfter > 0: // it was asked too often
			wait = max(wait, failed.RetryAfter)
		case errors.Is(err, ErrNotFound):
			return Config{}, fmt.Errorf("the request %s is forgotten: nobody has decided in time; ask again", p.Code)
		case err != nil:
			return Config{}, err
		case res.GetState() == hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_APPROVED:
			return p.options.store(p.key, res.GetCertificate())
		case res.GetState() == hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_DENIED:
			return Config{}, fmt.Errorf("an administrator has denied the request %s", p.Code)
		}
		if err := pause(ctx, wait); err != nil {
			return Config{}, err
		}
	}
}
