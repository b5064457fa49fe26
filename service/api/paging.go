package api

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// defaultListSize is how much a page of what is in memory has when the caller does not say.
const defaultListSize = 100

// pageOf returns a page of a list that is in the order of its keys, and the token of the next one.
func pageOf[T any](all []T, req paged, key func(*T) string) (page []T, next string, err error) {
	after, err := decodePageToken(req.GetPageToken())
	if err != nil {
		return nil, "", err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultListSize
	}
	start, found := slices.BinarySearchFunc(all, after, func(item T, after string) int { return strings.Compare(key(&item), after) })
	if found {
		start++
	}
	page = all[start:]
	if len(page) > size {
		page = page[:size]
		next = encodePageToken(key(&page[size-1]))
	}
	return page, next, nil
}

// paged is a request for a page.
type paged interface {
	GetPageSize() int32
	GetPageToken() string
}

func encodePageToken(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodePageToken(token string) (string, error) {
	key, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", errPageToken(token)
	}
	return string(key), nil
}

func errPageToken(token string) error {
	return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
		"page_token %q is not one that this server gave; take next_page_token as it is", token)
}
