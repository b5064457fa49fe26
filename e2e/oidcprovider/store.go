package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	clientID    = "hodei-cli"
	groupsScope = "groups"
)

// people are those who can log in, by their names, which are their subjects too; a password is the name with "-password".
type people map[string]*storage.User

func newPeople() people {
	all := people{}
	for _, u := range []storage.User{
		{ID: "ada", Email: "ada@example.org", EmailVerified: true},
		{ID: "eve", Email: "eve@example.org"},
	} {
		u.Username, u.Password = u.ID, u.ID+"-password"
		all[u.ID] = &u
	}
	return all
}

// groups are the people's.
var groups = map[string][]string{"ada": {"devs"}, "eve": {"admins"}}

// GetUserByID implements storage.UserStore.
func (p people) GetUserByID(id string) *storage.User { return p[id] }

// GetUserByUsername implements storage.UserStore.
func (p people) GetUserByUsername(name string) *storage.User { return p[name] }

// ExampleClientID implements storage.UserStore.
func (p people) ExampleClientID() string { return "" }

// store is the library's own example of a store, in memory, with groups and with keys that change.
type store struct {
	*storage.Storage
	tokenLife time.Duration

	mu   sync.Mutex
	keys []*key // the newest signs
}

func newStore(tokenLife time.Duration) (*store, error) {
	native := storage.NativeClient(clientID, "http://127.0.0.1/callback")
	s := &store{
		Storage:   storage.NewStorageWithClients(newPeople(), map[string]*storage.Client{clientID: native}),
		tokenLife: tokenLife,
	}
	return s, s.rotate(false)
}

// GetClientByClientID implements op.Storage.
func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c, s.tokenLife}, nil
}

// SetUserinfoFromRequest implements op.CanSetUserinfoFromRequest.
func (s *store) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	if slices.Contains(scopes, groupsScope) {
		info.AppendClaims("groups", groups[request.GetSubject()])
	}
	return s.Storage.SetUserinfoFromRequest(ctx, info, request, scopes)
}

// rotate makes a new key.
func (s *store) rotate(withdraw bool) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if withdraw {
		s.keys = nil
	}
	s.keys = append(s.keys, &key{id: rand.Text(), private: private})
	return nil
}

// SigningKey implements op.Storage.
func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[len(s.keys)-1], nil
}

// SignatureAlgorithms implements op.Storage.
func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// KeySet implements op.Storage.
func (s *store) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := make([]op.Key, len(s.keys))
	for i, k := range s.keys {
		set[i] = publicKey{k}
	}
	return set, nil
}

// key is one that signs.
type key struct {
	id      string
	private *ecdsa.PrivateKey
}

func (k *key) ID() string                                  { return k.id }
func (k *key) Key() any                                    { return k.private }
func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }

// publicKey is what everybody may know of a key.
type publicKey struct{ *key }

func (k publicKey) Key() any                           { return &k.private.PublicKey }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }

// client is the command line: a public client, in a browser of this machine or of another.
type client struct {
	op.Client
	tokenLife time.Duration
}

func (c client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeDeviceCode}
}
func (c client) LoginURL(id string) string            { return loginPath + "?id=" + id }
func (c client) IDTokenLifetime() time.Duration       { return c.tokenLife }
func (c client) IsScopeAllowed(scope string) bool     { return scope == groupsScope }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
