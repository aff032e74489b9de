package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// family is a metric as a program shows it.
type family struct {
	kind, help string
	labels     map[string]bool
}

// families reads /metrics.
func families(t testing.TB, base string) map[string]*family {
	t.Helper()
	response, err := client.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*family{}
	label := regexp.MustCompile(`[{,]([a-z]+)="`)
	var last *family
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			last = &family{help: help, labels: map[string]bool{}}
			found[name] = last
		} else if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			_, last.kind, _ = strings.Cut(rest, " ")
		} else {
			for _, match := range label.FindAllStringSubmatch(line, -1) {
				if match[1] != "le" && match[1] != "quantile" {
					last.labels[match[1]] = true
				}
			}
		}
	}
	return found
}

func (f *family) row(name string) string {
	labels := strings.Join(slices.Sorted(maps.Keys(f.labels)), ", ")
	if labels == "" {
		labels = "–"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", name, f.kind, labels, f.help)
}

// What the running programs show is what docs/metrics.md says, and has every name that the dashboard and the alerts use.
func TestMetricsAreWhatIsWritten(t *testing.T) {
	t.Parallel()
	s := newStack(t, "max_slot_wal_keep_size=1GB")
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.psql(`insert into materials (title, material_type) values ('one', 'article')`)
	api.waitHit("/api/materials/1/")
	s.psql(`alter table materials add column more int default 5`)
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	admin := regexp.MustCompile(`"admin":"([^"]+)"`).FindStringSubmatch(api.Log.String())
	if admin == nil {
		t.Fatalf("api does not log where it listens:\n%s", api.Log)
	}

	var shown map[string]*family
	// Some figures are there only once something has happened, or the servers were looked at.
	eventually(t, "every metric of docs/metrics.md is shown", func() error {
		shown = families(t, "http://"+admin[1])
		maps.Copy(shown, families(t, invalidator.Base))
		for _, match := range regexp.MustCompile("(?m)^\\| `(walkey_[a-z_]+)` ").FindAllStringSubmatch(string(text), -1) {
			if shown[match[1]] == nil {
				return fmt.Errorf("no %s", match[1])
			}
		}
		return nil
	})
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		if row := shown[name].row(name); strings.HasPrefix(name, "walkey_") && !strings.Contains(string(text), "\n"+row+"\n") {
			t.Errorf("docs/metrics.md lacks the row\n%s", row)
		}
	}

	for _, path := range []string{"../../deploy/grafana/walkey.json", "../../deploy/prometheus/alerts.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\b(walkey|go|process)_[a-z0-9_]+`).FindAllString(string(text), -1)
		if len(names) < 20 {
			t.Fatalf("%s names only %d metrics", path, len(names))
		}
		for _, name := range names {
			base := name
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if whole, cut := strings.CutSuffix(name, suffix); cut && shown[whole] != nil && shown[whole].kind == "histogram" {
					base = whole
				}
			}
			if shown[base] == nil {
				t.Errorf("%s names %s, which no program shows", path, name)
			}
		}
	}
}

// Each alert has a section that says what to do, and a test that it fires and that it does not.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	read := func(path string, into any) []byte {
		t.Helper()
		text, err := os.ReadFile(path)
		if err == nil && into != nil {
			err = yaml.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	read("../../deploy/prometheus/alerts.yaml", &alerts)
	var tests struct {
		Tests []struct {
			Name  string
			Tests []struct {
				Expr    string
				Samples []struct{ Value float64 } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	read("../../deploy/prometheus/alerts_test.yaml", &tests)
	outcomes := map[string]string{}
	for _, test := range tests.Tests {
		for _, one := range test.Tests {
			if strings.Contains(one.Expr, `"`+test.Name+`"`) {
				outcomes[test.Name] += fmt.Sprint(one.Samples[0].Value, " ")
			}
		}
	}
	runbooks := string(read("../../docs/runbooks.md", nil))
	count := 0
	for _, group := range alerts.Groups {
		for _, rule := range group.Rules {
			count++
			if rule.Annotations["runbook"] != "docs/runbooks.md#"+strings.ToLower(rule.Alert) || !strings.Contains(runbooks, "\n### "+rule.Alert+"\n") {
				t.Errorf("%s has no section in docs/runbooks.md, or does not name it: %q", rule.Alert, rule.Annotations["runbook"])
			}
			if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" && severity != "info" || rule.Annotations["summary"] == "" {
				t.Errorf("%s: severity %q, summary %q", rule.Alert, severity, rule.Annotations["summary"])
			}
			if outcomes[rule.Alert] != "0 1 " {
				t.Errorf("alerts_test.yaml tests of %s: %q, want once that it does not fire and once that it does", rule.Alert, outcomes[rule.Alert])
			}
		}
	}
	if count < 15 || strings.Count(runbooks, "\n### Walkey") != count {
		t.Errorf("%d alerts, %d sections", count, strings.Count(runbooks, "\n### Walkey"))
	}
}

// The dashboard can be imported anywhere: every panel takes its data from the variable.
func TestDashboardIsPortable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/grafana/walkey.json")
	if err != nil {
		t.Fatal(err)
	}
	type source struct{ UID string }
	var dashboard struct {
		UID        string
		Templating struct {
			List []struct{ Name, Type string }
		}
		Panels []struct {
			ID         int
			Type       string
			Title      string
			Datasource source
			GridPos    struct{ X, Y, W, H int }
			Targets    []struct {
				Expr       string
				Datasource source
			}
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Templating.List) == 0 || dashboard.Templating.List[0].Name != "datasource" || dashboard.Templating.List[0].Type != "datasource" || dashboard.UID == "" {
		t.Errorf("variables %+v", dashboard.Templating.List)
	}
	seen, places := map[int]bool{}, map[string]bool{}
	for _, p := range dashboard.Panels {
		place := fmt.Sprint(p.GridPos.X, " ", p.GridPos.Y)
		if seen[p.ID] || places[place] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: its id or its place is another's", p.ID, p.Title)
		}
		seen[p.ID], places[place] = true, true
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q takes its data from %q", p.Title, p.Datasource.UID)
		}
		for _, target := range p.Targets {
			if target.Expr == "" || target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q: %+v", p.Title, target)
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d panels", len(seen))
	}
}
