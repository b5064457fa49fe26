package service

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/hodei-jobs/hodei/service/h2"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/telemetry"
)

// newAPIServer sets the limits of the API's connections. Streams live for as long as an agent or a reader does, so there is
// no limit on the time of reading and writing; pings find connections whose other end is gone.
//
// The listener makes the handshakes, so that the server gets connections of which it knows who is at the other end.
func newAPIServer(handler http.Handler, limits *Limits, logger *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // curl and browsers without HTTP/2 for unary calls
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: limits.HeaderTime,
		IdleTimeout:       limits.IdleTime,
		MaxHeaderBytes:    limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          limits.Streams,
			MaxReadFrameSize:              64 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			MaxReceiveBufferPerConnection: 4<<20 - 1, // so that one stream that is not read cannot hold up the others
			SendPingTimeout:               15 * time.Second,
			PingTimeout:                   10 * time.Second,
			WriteByteTimeout:              limits.WriteTime,
		},
	}
	h2.Configure(server, limits.strangers())
	return server
}

func newOpsServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
}

// snapshot gives the gauges their values.
func (s *Server) snapshot(ctx context.Context) (telemetry.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // a scrape must not wait for a server that stops
	defer cancel()
	overview, err := s.jobs.Overview(ctx)
	if err != nil {
		return telemetry.Snapshot{}, err
	}
	out := telemetry.Snapshot{QueueSize: make(map[string]int64)}
	for state := job.Blocked; !state.Terminal(); state++ {
		out.QueueSize[state.String()] = int64(overview.ByState[state])
	}
	out.DiskFree, out.DiskReserve = s.disk.state()
	for i := range overview.Workers {
		w := &overview.Workers[i]
		if !w.Connected {
			continue
		}
		out.Agents++
		out.Workers = append(out.Workers, telemetry.WorkerLoad{
			ID: string(w.ID), Name: w.Name, CPUMilli: int64(w.Used.MilliCPU), MemoryBytes: int64(w.Used.MemoryMiB) << 20,
			ReservedCPUMilli: int64(w.Reserved.MilliCPU), ReservedMemBytes: int64(w.Reserved.MemoryMiB) << 20,
		})
	}
	return out, nil
}
