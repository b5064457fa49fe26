package h2

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pseudo are the fields of a request that are no headers.
type pseudo struct{ method, scheme, authority, path, protocol string }

func pseudoOf(f *http2.MetaHeadersFrame) pseudo {
	var p pseudo
	for _, field := range f.PseudoFields() {
		switch field.Name {
		case ":method":
			p.method = field.Value
		case ":scheme":
			p.scheme = field.Value
		case ":authority":
			p.authority = field.Value
		case ":path":
			p.path = field.Value
		case ":protocol":
			p.protocol = field.Value
		}
	}
	return p
}

// valid says whether a request has what it must have, and nothing else (RFC 9113, 8.3.1).
func (p *pseudo) valid() bool {
	web := p.scheme == "https" || p.scheme == "http"
	switch {
	case p.protocol != "": // only servers that have allowed it take it
		return false
	case strings.Contains(p.authority, "@"), p.authority != "" && !httpguts.ValidHostHeader(p.authority):
		return false
	case p.method == http.MethodConnect:
		return p.path == "" && p.scheme == "" && p.authority != ""
	}
	return p.method != "" && httpguts.ValidHeaderFieldName(p.method) && web && (strings.HasPrefix(p.path, "/") || p.path == "*")
}

// readRequest makes the http.Request of a stream.
func (st *stream) readRequest(ctx context.Context, f *http2.MetaHeadersFrame) error {
	malformed := http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	header, ok := st.conn.readHeader(f.RegularFields())
	if !ok {
		return malformed
	}
	p := pseudoOf(f)
	if p.authority, ok = takeHost(p.authority, header); !ok || !p.valid() {
		return malformed
	}
	target, uri, err := p.target()
	if err != nil {
		return malformed
	}
	length, ok := declaredLength(header["Content-Length"], st.peerDone)
	if !ok {
		return malformed
	}
	b := &st.body
	b.declared = length
	b.expected = takeExpectation(header) && !st.peerDone
	b.announced = takeAnnounced(header)
	if cookies := header["Cookie"]; len(cookies) > 1 {
		header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	request := &http.Request{
		Method: p.method, URL: target, Proto: "HTTP/2.0", ProtoMajor: 2, Header: header, Host: p.authority,
		ContentLength: length, Body: http.NoBody, RequestURI: uri, RemoteAddr: st.conn.remote, TLS: st.conn.tls, Trailer: maps.Clone(b.announced),
	}
	if st.peerDone {
		b.err = io.EOF
	} else {
		request.Body = b
	}
	st.request = request.WithContext(ctx)
	return nil
}

// readHeader collects fields; false: a field is there that only HTTP/1 has.
func (c *conn) readHeader(fields []hpack.HeaderField) (http.Header, bool) {
	header := make(http.Header, len(fields))
	values := make([]string, len(fields)) // of all fields, in one piece of memory
	for i, field := range fields {
		name := c.names.Of(field.Name)
		if before, ok := header[name]; ok {
			header[name] = append(before, field.Value)
			continue
		}
		values[i] = field.Value
		header[name] = values[i : i+1 : i+1]
	}
	for _, name := range [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade"} {
		if _, ok := header[name]; ok {
			return nil, false
		}
	}
	te := header["Te"]
	return header, len(te) == 0 || len(te) == 1 && strings.EqualFold(te[0], "trailers")
}

// takeHost is the authority, which an HTTP/1 client behind a proxy has given as a header; false: they differ.
func takeHost(authority string, header http.Header) (string, bool) {
	hosts, ok := header["Host"]
	if !ok {
		return authority, true
	}
	delete(header, "Host")
	if authority == "" {
		authority = hosts[0]
	}
	return authority, len(hosts) == 1 && hosts[0] == authority
}

// declaredLength is how long the body is; -1: nobody knows. False: that is wrong already.
func declaredLength(values []string, ended bool) (int64, bool) {
	if len(values) == 0 {
		if ended {
			return 0, true
		}
		return -1, true
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	return int64(n), err == nil && (n == 0 || !ended)
}

func takeExpectation(header http.Header) bool {
	expectation, ok := header["Expect"]
	if !ok || !httpguts.HeaderValuesContainsToken(expectation, "100-continue") {
		return false
	}
	delete(header, "Expect")
	return true
}

// takeAnnounced are the names of trailers that shall come, without values yet.
func takeAnnounced(header http.Header) http.Header {
	values, ok := header["Trailer"]
	if !ok {
		return nil
	}
	delete(header, "Trailer")
	var announced http.Header
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			switch name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); name {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				continue
			}
			if announced == nil {
				announced = make(http.Header)
			}
			announced[name] = nil
		}
	}
	return announced
}

// target is what the request is for, as net/http has it.
func (p *pseudo) target() (*url.URL, string, error) {
	if p.method == http.MethodConnect {
		return &url.URL{Host: p.authority}, p.authority, nil
	}
	target, err := parsePath(p.path)
	return target, p.path, err
}

// parsePath is url.ParseRequestURI, with a short way for paths in which nothing has a meaning of its own.
func parsePath(path string) (*url.URL, error) {
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		case c == '/' && (i == 0 || path[i-1] != '/'):
		default:
			return url.ParseRequestURI(path)
		}
	}
	return &url.URL{Path: path}, nil
}
