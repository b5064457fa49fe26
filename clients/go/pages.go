package hodei

import (
	"context"
	"iter"
)

// pageSize is how many things are asked for at once.
const pageSize = 500

// pages yields what page returns, page after page, until there is none or the caller stops. It ends with the first error. token says
// where a page begins; next is that of the one behind it.
func pages[T any](ctx context.Context, c *Client, page func(token string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for token := ""; ; {
			var items []T
			var next string
			err := c.retry(ctx, func() (err error) {
				items, next, err = page(token)
				return err
			})
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if token = next; token == "" {
				return
			}
		}
	}
}
