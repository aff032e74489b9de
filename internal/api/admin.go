package api

import (
	"net/http"
	"net/http/pprof"

	"go.uber.org/zap"
)

// Admin answers what only operators may see: /metrics, /debug/pprof/ and /loglevel, where GET shows the level of the log
// and PUT {"level":"debug"} changes it.
func Admin(metrics *Metrics, level zap.AtomicLevel) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.handler())
	mux.Handle("/loglevel", level)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
