package hodei

import (
	"context"
	"sync"

	"connectrpc.com/connect/v2"
)

// authenticate is an interceptor that proves who makes a call: it sends an access token, or sees to it that the certificate of the
// connection is fresh. A call whose token the server refuses is made once more with another one.
func (c *Client) authenticate(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		c.login.keepFresh(ctx)
		s := &provenStream{token: c.token, freshen: func() { c.login.keepFreshBehind(ctx) }}
		s.open = func() (connect.ClientStream, string, error) {
			token := ""
			if c.token != nil {
				var err error
				if token, err = c.token.get(ctx); err != nil {
					return nil, "", err
				}
				info, _ := connect.CallInfoForClientContext(ctx)
				info.RequestHeader().Set("Authorization", "Bearer "+token)
			}
			stream, err := next(ctx, spec)
			return stream, token, err
		}
		var err error
		s.stream, s.used, err = s.open()
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

// provenStream is a stream that can be opened again with another token, as long as nothing was received.
type provenStream struct {
	open     func() (stream connect.ClientStream, token string, err error)
	freshen  func()
	token    *accessToken // nil: none
	request  any          // the one message that was sent
	sent     int
	answered bool

	mu     sync.Mutex // Close may come at any time
	stream connect.ClientStream
	used   string // the token that stream was opened with
	closed bool
}

func (s *provenStream) current() connect.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// SendHeaders implements connect.ClientStream.
func (s *provenStream) SendHeaders() error { return s.current().SendHeaders() }

// Send implements connect.ClientStream.
func (s *provenStream) Send(msg any) error {
	s.request = msg
	s.sent++
	return s.current().Send(msg)
}

// CloseSend implements connect.ClientStream.
func (s *provenStream) CloseSend() error { return s.current().CloseSend() }

// Receive implements connect.ClientStream. Of a stream that lasts, the certificate may become old.
func (s *provenStream) Receive(msg any) error {
	s.freshen()
	err := s.current().Receive(msg)
	if err == nil {
		s.answered = true
		return nil
	}
	if s.token == nil || connect.CodeOf(err) != connect.CodeUnauthenticated || !s.token.discard(s.used) || s.answered || s.sent != 1 {
		return err
	}
	if again := s.reopen(); again != nil {
		return again
	}
	if err = s.current().Receive(msg); err == nil {
		s.answered = true
	}
	return err
}

// reopen begins the call anew with a fresh token.
func (s *provenStream) reopen() error {
	stream, used, err := s.open()
	if err != nil {
		return err
	}
	s.mu.Lock()
	old, closed := s.stream, s.closed
	s.stream, s.used = stream, used
	s.mu.Unlock()
	_ = old.Close() // it has said all
	if closed {
		return stream.Close()
	}
	if err := stream.Send(s.request); err != nil {
		return err
	}
	return stream.CloseSend()
}

// Close implements connect.ClientStream.
func (s *provenStream) Close() error {
	s.mu.Lock()
	s.closed = true
	stream := s.stream
	s.mu.Unlock()
	return stream.Close()
}
