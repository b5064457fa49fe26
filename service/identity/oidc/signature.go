package oidc

import (
	"context"
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// signature checks that of one token, by what the provider has published, and remembers whether it is good.
type signature struct {
	by   *published
	good bool
}

// VerifySignature implements the KeySet of go-oidc.
func (s *signature) VerifySignature(_ context.Context, token string) ([]byte, error) {
	algorithms := make([]jose.SignatureAlgorithm, len(s.by.algorithms))
	for i, a := range s.by.algorithms {
		algorithms[i] = jose.SignatureAlgorithm(a)
	}
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	header := signed.Signatures[0].Protected
	for i := range s.by.keys {
		key := &s.by.keys[i]
		if header.KeyID != "" && key.KeyID != header.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		payload, err := signed.Verify(key)
		if err != nil {
			continue
		}
		s.good = true
		// Providers sign other things by the same keys: access tokens ("at+jwt"), messages that somebody has logged out.
		if kind, named := header.ExtraHeaders[jose.HeaderType]; named && !isJWT(kind) {
			return nil, errors.New("the provider has made it for another purpose than to say who somebody is")
		}
		return payload, nil
	}
	return nil, errors.New("none of the provider's keys has signed it")
}

func isJWT(kind any) bool {
	name, ok := kind.(string)
	return ok && strings.EqualFold(name, "JWT")
}
