package tracing

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

const (
	scope = "walkey" // of all spans
	// closeTimeout bounds the sending of what is left at the end.
	closeTimeout = 3 * time.Second
	// repeatAfter is how long failures of sending are not logged again.
	repeatAfter = time.Minute
)

// A Tracing sends spans. nil is one that is off.
type Tracing struct{ provider *sdktrace.TracerProvider }

// Wanted says whether OpenTelemetry's variables ask for spans. They count in the environment of the process only.
func Wanted() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return slices.ContainsFunc(variables, func(name string) bool { return os.Getenv(name) != "" })
}

// check gives the variable whose value is not supported, and why.
func check() (name string, err error) {
	if !Wanted() {
		return "", nil
	}
	name = "OTEL_TRACES_EXPORTER"
	if exporter := os.Getenv(name); exporter != "" && exporter != "otlp" {
		return name, fmt.Errorf("must be otlp or none, not %q", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := os.Getenv(name); protocol != "" && protocol != "http/protobuf" {
			return name, fmt.Errorf("must be http/protobuf (port 4318, mostly), not %q", protocol)
		} else if protocol != "" {
			break // the more special one counts
		}
	}
	return "", nil
}

// Open begins to send for the program of that name, if that is wanted; else it gives nil. A collector that is not there is no error.
func Open(ctx context.Context, program, version string, log *zap.Logger) (*Tracing, error) {
	if !Wanted() {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up tracing: %w", err)
	}
	// What the variables say goes over what is said here.
	described, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "walkey-"+program), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("set up tracing: %w", err)
	}
	otel.SetErrorHandler(&failures{log: log})
	return &Tracing{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))}, nil
}

// Tracer makes spans; nil when tracing is off.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer(scope)
}

// Close sends what is left, for a while, and ends.
func (t *Tracing) Close(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		otel.Handle(err)
	}
}

// failures logs that spans can't be sent, not too often.
type failures struct {
	log *zap.Logger

	mu sync.Mutex
	at time.Time // guarded by mu
}

// Handle implements otel.ErrorHandler.
func (f *failures) Handle(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.at) >= repeatAfter {
		f.at = now
		f.log.Warn("spans can't be sent", zap.Error(err))
	}
}
