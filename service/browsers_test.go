package service

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// call makes a unary call that anybody may make, and returns the answer's header and body.
func (r *running) call(t *testing.T, method string, header map[string]string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.URL()+"/hodei.v1.AuthService/GetLoginOptions", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := r.client(t, nil).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestPagesOfOtherOriginsCallOnlyWhenTheyMay(t *testing.T) {
	const page = "https://jobs.example.com"
	r := start(t, Config{CORSOrigins: []string{page, "http://127.0.0.1:5173"}})
	for _, tc := range []struct{ origin, allowed string }{{page, page}, {"http://127.0.0.1:5173", "http://127.0.0.1:5173"}, {"https://evil.example.com", ""}, {"null", ""}} {
		asked, _ := r.call(t, http.MethodOptions, map[string]string{
			"Origin": tc.origin, "Access-Control-Request-Method": "POST",
			"Access-Control-Request-Headers": "authorization,connect-protocol-version,content-type,hodei-client",
		})
		if got := asked.Header.Get("Access-Control-Allow-Origin"); got != tc.allowed || asked.StatusCode != http.StatusNoContent {
			t.Errorf("a page of %s that asks is told %d %q, want %q", tc.origin, asked.StatusCode, got, tc.allowed)
		}
		if got := asked.Header.Get("Access-Control-Allow-Headers"); tc.allowed != "" && !strings.Contains(got, "hodei-client") {
			t.Errorf("a page of %s may send %q", tc.origin, got)
		}
		called, body := r.call(t, http.MethodPost, map[string]string{"Origin": tc.origin, "Content-Type": "application/json"})
		if got := called.Header.Get("Access-Control-Allow-Origin"); got != tc.allowed || body != "{}" {
			t.Errorf("a page of %s that calls gets %q with %q, want %q", tc.origin, body, got, tc.allowed)
		}
		if called.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("a page of %s may use what the browser has of its user", tc.origin)
		}
	}
	without := start(t, Config{})
	if asked, _ := without.call(t, http.MethodOptions, map[string]string{"Origin": page, "Access-Control-Request-Method": "POST"}); asked.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a server that allows no page allows one")
	}
	for _, wrong := range []string{"jobs.example.com", "https://jobs.example.com/", "https://jobs.example.com/app", "ftp://x", "*", ""} {
		if _, err := New(t.Context(), Config{DataDir: t.TempDir(), CORSOrigins: []string{wrong}}); err == nil || !strings.Contains(err.Error(), "--cors-origin") {
			t.Errorf("the origin %q: %v", wrong, err)
		}
	}
}

func TestClientsOfAnotherMajorVersionAreRefused(t *testing.T) {
	for server, clients := range map[string]map[string]bool{
		"v2.3.4":           {"go/2.0.0": true, "python/2.9.9-rc.1": true, "python/1.9.0": false, "typescript/3.0.0": false, "go/dev": true, "": true, "x": true, "go/12": true},
		"v2.3.4-5-gabc123": {"go/2.0.0": true, "go/1.0.0": false},
		"54b6d7e":          {"go/1.0.0": true},
		"dev":              {"go/7.0.0": true},
	} {
		r := start(t, Config{Version: server})
		for client, welcome := range clients {
			response, body := r.call(t, http.MethodPost, map[string]string{"Content-Type": "application/json", "Hodei-Client": client})
			refused := response.StatusCode == http.StatusBadRequest && strings.Contains(body, "failed_precondition") && strings.Contains(body, server)
			if welcome && body != "{}" || !welcome && !refused {
				t.Errorf("a server %q answers a client %q with %d %s", server, client, response.StatusCode, body)
			}
		}
	}
}
