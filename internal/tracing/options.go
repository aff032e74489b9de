package tracing

import (
	"os"

	"walkey/internal/program"
)

// Options are OpenTelemetry's own variables, which its library reads; there are no flags.
type Options struct{}

// variables are those that switch it on.
var variables = []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}

// Check implements [program.Checker].
func (Options) Check(p *program.Problems) {
	for _, name := range variables {
		if _, found := p.Lookup(name); found && os.Getenv(name) == "" {
			p.Add(name, "counts in the environment only, not in .env or as %s_FILE", name)
		}
	}
	if name, err := check(); err != nil {
		p.Add(name, "%v", err)
	}
}
