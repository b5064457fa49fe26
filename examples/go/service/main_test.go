package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/hodei-jobs/hodei/clients/go/hodeitest"
)

func TestServiceMakesReports(t *testing.T) {
	web := httptest.NewServer(newService(hodeitest.NewServer(t).Client))
	defer web.Close()
	response, err := http.PostForm(web.URL+"/reports", url.Values{"city": {"Zagreb; echo $HOME"}})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var started struct{ ID string }
	if err := json.NewDecoder(response.Body).Decode(&started); err != nil || response.StatusCode != http.StatusAccepted {
		t.Fatalf("starting a report answered %s: %v", response.Status, err)
	}
	get := func(path string) (int, string) {
		t.Helper()
		response, err := http.Get(web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	const want = "measuring the report of Zagreb; echo $HOME\nadding the report of Zagreb; echo $HOME\nwriting the report of Zagreb; echo $HOME\n"
	if _, log := get("/reports/" + started.ID + "/log"); log != want {
		t.Errorf("the log is %q", log)
	}
	if status, _ := get("/reports/job_00000000000000000000000000"); status != http.StatusNotFound {
		t.Errorf("a report that is not there answers %d", status)
	}
}
