// Package h2 is an HTTP/2 client for calls: small requests with small answers, and streams. Header and body of a small request
// go out in one piece from the goroutine of the caller, who is woken once, when all that came at the same time is there. It has
// no server push, no compression, no redirects, no trailers of requests and no "Expect".
package h2
