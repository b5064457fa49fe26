package h2

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

var errHeaderTooLarge = errors.New("the answer's header is too large")

// takeHeaders begins an answer, or ends one by trailers. c.mu is held.
func (c *conn) takeHeaders(f *http2.MetaHeadersFrame) error {
	st := c.streams[f.StreamID]
	switch {
	case st == nil && c.unopened(f.StreamID):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil: // it was on its way when this side ended the stream
		return nil
	case f.Truncated:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeCancel, Cause: errHeaderTooLarge}
	case st.response != nil:
		return c.takeTrailers(st, f)
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	if err != nil || status < 100 || status > 999 || f.StreamEnded() && status < 200 {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: errors.New("the answer has no status")}
	}
	if status < 200 {
		return nil
	}
	c.answer(st, status, f)
	c.useful, st.told = true, true
	c.ready = append(c.ready, st)
	if f.StreamEnded() {
		return c.endAnswer(st)
	}
	return nil
}

// answer makes a response from a header. c.mu is held.
func (c *conn) answer(st *stream, status int, f *http2.MetaHeadersFrame) {
	fields := f.RegularFields()
	res := &http.Response{
		Status: statusText(status), StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: make(http.Header, len(fields)), Request: st.request, TLS: c.tls, Body: &st.body,
	}
	values := make([]string, len(fields))
	for i, field := range fields {
		name := c.names.Of(field.Name)
		if before := res.Header[name]; before != nil {
			res.Header[name] = append(before, field.Value)
			continue
		}
		values[i] = field.Value
		res.Header[name] = values[i : i+1 : i+1]
	}
	st.body.declared = -1
	if n, err := strconv.ParseUint(res.Header.Get("Content-Length"), 10, 63); err == nil {
		st.body.declared = int64(n)
	}
	head := st.request.Method == http.MethodHead
	st.bodyless = head || status == http.StatusNoContent || status == http.StatusNotModified
	if f.StreamEnded() && !head && st.body.declared < 0 {
		st.body.declared = 0
	}
	res.ContentLength = st.body.declared
	announceTrailers(res)
	st.response = res
}

// announceTrailers puts the names of trailers that shall come where their values will be.
func announceTrailers(res *http.Response) {
	for _, names := range res.Header["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			if name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); httpguts.ValidTrailerHeader(name) {
				if res.Trailer == nil {
					res.Trailer = make(http.Header)
				}
				res.Trailer[name] = nil
			}
		}
	}
	delete(res.Header, "Trailer")
}

// takeTrailers ends an answer. c.mu is held.
func (c *conn) takeTrailers(st *stream, f *http2.MetaHeadersFrame) error {
	malformed := http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: errors.New("the answer's trailers are malformed")}
	if st.peerDone || !f.StreamEnded() || len(f.PseudoFields()) > 0 {
		return malformed
	}
	st.body.trailer = make(http.Header)
	for _, field := range f.RegularFields() {
		name := c.names.Of(field.Name)
		if !httpguts.ValidTrailerHeader(name) {
			return malformed
		}
		st.body.trailer[name] = append(st.body.trailer[name], field.Value)
	}
	return c.endAnswer(st)
}

// statusText avoids making the text of the usual one.
func statusText(status int) string {
	if status == http.StatusOK {
		return "200 OK"
	}
	return strconv.Itoa(status) + " " + http.StatusText(status)
}
