package manifests

import "strings"

const ruleHead = `# Made of deploy/prometheus/alerts.yaml by ` + "`make prometheusrule`" + `.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: walkey
  labels: {app.kubernetes.io/part-of: walkey}
spec:
`

// PrometheusRule is a file of Prometheus' rules as an object of its operator.
func PrometheusRule(rules []byte) string {
	var b strings.Builder
	b.WriteString(ruleHead)
	for line := range strings.Lines(string(rules)) {
		if strings.TrimSpace(line) != "" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return b.String()
}
