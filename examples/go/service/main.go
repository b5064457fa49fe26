// Service is a web service that makes reports, each in a job of its own.
//
//	curl -X POST 'http://127.0.0.1:8080/reports?city=Zagreb'     starts one and says its id
//	curl http://127.0.0.1:8080/reports/ID                        how it stands
//	curl -N http://127.0.0.1:8080/reports/ID/log                 what it writes, while it does
//
// It finds the server of jobs as the command line does: by HODEI_URL and the like, or by the current context.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// report is the script of a job. What comes from a request reaches it in its environment, never in its text.
const report = `
for part in measuring adding writing; do
  echo "$part the report of $CITY"
  sleep 0.2
done
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	jobs, err := hodei.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: "127.0.0.1:8080", Handler: newService(jobs), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// service has one method for each kind of request.
type service struct{ jobs *hodei.Client }

func newService(jobs *hodei.Client) http.Handler {
	s := &service{jobs}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reports", s.start)
	mux.HandleFunc("GET /reports/{id}", s.show)
	mux.HandleFunc("GET /reports/{id}/log", s.follow)
	return mux
}

func (s *service) start(w http.ResponseWriter, r *http.Request) {
	job, err := s.jobs.Submit(r.Context(), &hodeiv1.JobSpec{
		Name:   "report",
		Labels: map[string]string{"service": "reports"},
		Env:    map[string]string{"CITY": r.FormValue("city")},
		Steps:  []*hodeiv1.Step{{Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: report}}}},
	})
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	answer(w, job)
}

func (s *service) show(w http.ResponseWriter, r *http.Request) {
	job, err := s.jobs.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, job)
}

func (s *service) follow(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	for line, err := range s.jobs.Logs(r.Context(), r.PathValue("id"), hodei.LogOptions{Follow: true}) {
		if err != nil {
			fail(w, err)
			return
		}
		fmt.Fprintln(w, line.Text())
		_ = out.Flush() // a reader that has left ends the request's context
	}
}

func answer(w http.ResponseWriter, job *hodeiv1.Job) {
	_ = json.NewEncoder(w).Encode(map[string]string{"id": job.GetId(), "state": job.GetState().String()}) // the caller may have left
}

// fail answers with what went wrong. The errors of the client say which fault is whose.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway
	switch {
	case errors.Is(err, hodei.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, hodei.ErrInvalidArgument):
		status = http.StatusBadRequest
	case errors.Is(err, hodei.ErrQuotaExceeded), errors.Is(err, hodei.ErrUnavailable):
		status = http.StatusServiceUnavailable
	}
	http.Error(w, err.Error(), status)
}
