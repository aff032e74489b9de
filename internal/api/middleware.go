package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"walkey/internal/cache"
	"walkey/internal/onewrite"
)

// statusClientGone is counted for a request whose client left before the answer; nobody is sent it.
const statusClientGone = 499

// recorder remembers the status of an answer. It is the ResponseWriter of every handler here.
type recorder struct {
	http.ResponseWriter
	request *http.Request
	status  int           // 0 until the header is written
	begun   time.Duration // when the request came, by API.clock
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return onewrite.Write(w.request.Context(), w.ResponseWriter, b)
}

// clock is the time since the API was made: what a request needs of the time, for less than time.Now takes.
func (a *API) clock() time.Duration { return time.Since(a.made) }

// took is how long ago the request came that w answers.
func (a *API) took(w http.ResponseWriter) time.Duration {
	if rec, ok := w.(*recorder); ok {
		return a.clock() - rec.begun
	}
	return 0
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var recorders = sync.Pool{New: func() any { return new(recorder) }}

// count counts requests by route and status, and measures them.
func (a *API) count(name string, next func(*recorder, *http.Request)) http.Handler {
	requests := a.metrics.route(name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := recorders.Get().(*recorder)
		rec.ResponseWriter, rec.request, rec.status, rec.begun = w, r, 0, a.clock()
		defer func() {
			requests.add(rec.status, a.clock()-rec.begun)
			rec.ResponseWriter, rec.request = nil, nil
			recorders.Put(rec)
		}()
		next(rec, r)
	})
}

// answerErrors is the only place where an error becomes an answer and a line of the log.
func (a *API) answerErrors(next handler) func(*recorder, *http.Request) {
	return func(w *recorder, r *http.Request) {
		err := next(w, r)
		if err == nil {
			return
		}
		if r.Context().Err() != nil && errors.Is(err, context.Cause(r.Context())) {
			w.status = statusClientGone
			return
		}
		answer, ok := errors.AsType[*problem](err)
		if !ok {
			answer = a.explain(err)
		}
		if w.status != 0 {
			// Half an answer is out. Cutting the connection is the only way to say that it is not whole.
			panic(http.ErrAbortHandler)
		}
		answer.write(w)
	}
}

// explain logs an error that the client is not to see, and gives what it is told instead.
func (a *API) explain(err error) *problem {
	switch {
	case !a.migrated.Load():
		a.log.Warn("request before the database is ready", zap.Error(err))
		return a.unavailable("the service is starting")
	case errors.Is(err, cache.ErrUnavailable):
		a.log.Warn("Valkey unreachable", zap.Error(err))
		return a.unavailable("sessions can't be read or written at the moment")
	case errors.Is(err, cache.ErrOverloaded):
		a.log.Warn("too many loads at the same time")
		p := a.unavailable("too many answers are being made at the moment")
		p.retryAfter = overloadedSeconds
		return p
	case errors.Is(err, errHashingBusy):
		a.log.Warn("too many logins at the same time")
		return a.unavailable("too many people are logging in at the moment")
	case Unreachable(err):
		a.log.Warn("database unreachable", zap.Error(err))
		return a.unavailable("the database does not answer")
	}
	a.log.Error("request failed", zap.Error(err))
	return newProblem(http.StatusInternalServerError, "")
}

// overloadedSeconds is soon: a queue of loads goes down quickly once it does.
const overloadedSeconds = 1

// retryAfterSeconds is about as long as a restart of the database takes.
const retryAfterSeconds = 2

func (a *API) unavailable(detail string) *problem {
	p := newProblem(http.StatusServiceUnavailable, detail)
	p.retryAfter = retryAfterSeconds
	return p
}

// recovered turns a panic of a handler into an error.
func recovered(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (err error) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}()
		return next(w, r)
	}
}

// sampled lets each message through once a second: what fails for one request fails for a thousand.
func sampled(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, 1, 0)
	}))
}
