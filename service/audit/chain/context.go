package chain

import "context"

type contextKey struct{}

// pending is an entry that waits for the change that it is about.
type pending struct {
	entry *Entry
	taken bool
}

// NewContext has the first change that is made with the context recorded by the entry, in the commit that makes it durable. Whoever makes
// the change may add to the entry until then, see About. The context must not be used for several changes at once.
func NewContext(ctx context.Context, e *Entry) context.Context {
	return context.WithValue(ctx, contextKey{}, &pending{entry: e})
}

// About adds what a change is made to, to the entry of the context if there is one, until the change is handed on.
func About(ctx context.Context, targets ...string) {
	if p, ok := ctx.Value(contextKey{}).(*pending); ok && !p.taken {
		p.entry.Targets = append(p.entry.Targets, targets...)
	}
}

// Take returns the entry of the context to whoever records a change; nil when there is none, or it was taken before.
func Take(ctx context.Context) *Entry {
	if p, ok := ctx.Value(contextKey{}).(*pending); ok && !p.taken {
		p.taken = true
		return p.entry
	}
	return nil
}
