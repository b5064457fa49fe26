package api

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// preflightLife is how long a browser need not ask again.
const preflightLife = 2 * time.Hour

// CheckOrigin returns an error when text is not an origin as browsers send it: a scheme and a host, and a port that is not the usual one.
func CheckOrigin(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || text != u.Scheme+"://"+u.Host || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is not the origin of a page; it looks like https://jobs.example.com or http://127.0.0.1:5173, without a path", text)
	}
	return nil
}

// crossOrigin lets pages of these origins call the API with a token. A certificate that the browser has is not theirs to use: nothing is
// said of credentials.
func crossOrigin(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Authorization", clientHeader),
		ExposedHeaders: connectcors.ExposedHeaders(),
		MaxAge:         int(preflightLife.Seconds()),
	}).Handler(next)
}
