package tracing

import (
	"os"
	"strings"
	"testing"
)

// What the variables ask for, and what of that is not supported. Not parallel: the variables are the process' own.
func TestVariables(t *testing.T) {
	for _, test := range []struct {
		set     string
		wanted  bool
		mistake string // the variable
	}{
		{"", false, ""},
		{"OTEL_SERVICE_NAME=shop", false, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318", true, ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://localhost:4318/v1/traces", true, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_SDK_DISABLED=true", false, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_PROTOCOL=grpc", false, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", true, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_TRACES_EXPORTER=zipkin", true, "OTEL_TRACES_EXPORTER"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 OTEL_EXPORTER_OTLP_PROTOCOL=grpc", true, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json", true, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_PROTOCOL=grpc", true, ""},
	} {
		t.Run(test.set, func(t *testing.T) {
			for _, pair := range os.Environ() {
				if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
					t.Setenv(name, "")
				}
			}
			for pair := range strings.FieldsSeq(test.set) {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv(name, value)
			}
			name, err := check()
			if Wanted() != test.wanted || name != test.mistake && err != nil || (err != nil) != (test.mistake != "") {
				t.Errorf("wanted %v, mistake in %q: %v", Wanted(), name, err)
			}
			if tracing, err := Open(t.Context(), "test", "1", nil); !test.wanted && (tracing != nil || err != nil || tracing.Tracer() != nil) {
				t.Errorf("%v, %v although it is off", tracing, err)
			} else {
				tracing.Close(t.Context())
			}
		})
	}
}
