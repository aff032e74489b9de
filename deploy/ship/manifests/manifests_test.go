package manifests

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write the component's alerts anew")

const kubernetes = root + "/deploy/kubernetes"

// variant writes production with the example's secrets and other components, and gives its folder.
func variant(t *testing.T, components ...string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "deploy")
	if err := os.CopyFS(tree, os.DirFS(root+"/deploy/kubernetes")); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(tree, "overlays", "production")
	if err := os.CopyFS(filepath.Join(folder, "secrets"), os.DirFS(filepath.Join(folder, "secrets.example"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "kustomization.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for _, c := range components {
		list.WriteString("  - ../../components/" + c + "\n")
	}
	before, after, found := strings.Cut(string(text), "components:\n")
	_, after, ended := strings.Cut(after, "configMapGenerator:\n")
	if !found || !ended {
		t.Fatal("production's kustomization.yaml is not as it was")
	}
	if list.Len() > 0 {
		before += "components:\n"
	}
	if err := os.WriteFile(path, []byte(before+list.String()+"configMapGenerator:\n"+after), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// components are all there are.
func components(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(kubernetes + "/components")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) < 2 {
		t.Fatalf("components: %q", names)
	}
	return names
}

func build(t *testing.T, folder string) *Set {
	t.Helper()
	text, err := Build(folder)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every overlay, and production with each component, decodes strictly, fits together, and names nothing that the programs do not know.
func TestManifests(t *testing.T) {
	t.Parallel()
	cases := map[string]func(*testing.T) string{
		"dev":                   func(*testing.T) string { return kubernetes + "/overlays/dev" },
		"production":            func(t *testing.T) string { return variant(t) },
		"production as shipped": func(t *testing.T) string { return variant(t, "tls") },
	}
	for _, c := range components(t) {
		cases["production, "+c] = func(t *testing.T) string { return variant(t, c) }
	}
	for name, folder := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, folder(t))
			for _, problem := range s.Check() {
				t.Error(problem)
			}
			for _, w := range s.Workloads {
				for _, container := range Containers(w.Template) {
					if !strings.HasPrefix(container.Image, "walkey") && !strings.Contains(container.Image, "/walkey:") {
						continue
					}
					where := w.Name + ", " + container.Name + ": "
					for _, problem := range programs.CheckVariables(s.Environment(&container)) {
						t.Error(where + problem)
					}
					for _, problem := range programs.CheckCommand(slices.Concat(container.Command, container.Args)) {
						t.Error(where + problem)
					}
					checkPorts(t, s, where, &container)
					checkFiles(t, where, s, &w, &container)
				}
			}
		})
	}
}

// checkPorts holds the ports of a container against what the program listens on.
func checkPorts(t *testing.T, s *Set, where string, container *core.Container) {
	t.Helper()
	env := s.Environment(container)
	for variable, program := range map[string]string{"API_ADDR": "api", "API_ADMIN_ADDR": "api", "INVALIDATOR_ADDR": "invalidator"} {
		if container.Command[0] != "/"+program || len(container.Ports) == 0 {
			continue
		}
		address := env[variable]
		if address == "" {
			address = programs.Default(program, variable)
		}
		port, err := strconv.Atoi(strings.TrimPrefix(address, ":"))
		if err != nil || !slices.ContainsFunc(container.Ports, func(p core.ContainerPort) bool { return int(p.ContainerPort) == port }) {
			t.Errorf("%sthe program listens on %q, the container has %+v", where, address, container.Ports)
		}
	}
}

// checkFiles looks whether the files that variables name are mounted.
func checkFiles(t *testing.T, where string, s *Set, w *Workload, container *core.Container) {
	t.Helper()
	for name, value := range s.Environment(container) {
		if !strings.HasPrefix(value, "/") || name == "PGSSLROOTCERT" || name == "VALKEY_CA" { // of a ConfigMap that users make
			continue
		}
		i := slices.IndexFunc(container.VolumeMounts, func(m core.VolumeMount) bool { return m.MountPath == filepath.Dir(value) })
		if i < 0 {
			t.Errorf("%s%s names %s, where nothing is mounted", where, name, value)
			continue
		}
		for _, v := range w.Template.Spec.Volumes {
			if v.Name != container.VolumeMounts[i].Name {
				continue
			}
			found := false
			if v.Secret != nil {
				_, found = s.Secrets[v.Secret.SecretName].Data[filepath.Base(value)]
			}
			if v.ConfigMap != nil {
				_, found = s.ConfigMaps[v.ConfigMap.Name].Data[filepath.Base(value)]
			}
			// The replica's URL is the one thing that the example's secrets do not have.
			if !found && name != "DATABASE_REPLICA_URL_FILE" {
				t.Errorf("%s%s names %s, which is not in the volume", where, name, value)
			}
		}
	}
}

// Secrets and settings have names that change with their content, so that pods are replaced; the rules have not, so that they are reloaded.
func TestNamesOfContent(t *testing.T) {
	t.Parallel()
	s := build(t, kubernetes+"/overlays/dev")
	hashed := func(name, plain string) bool { return len(name) == len(plain)+11 && strings.HasPrefix(name, plain+"-") }
	names := func(maps ...string) (all []string) { return append(all, maps...) }
	var got []string
	for name := range s.ConfigMaps {
		got = append(got, name)
	}
	for name := range s.Secrets {
		got = append(got, name)
	}
	for _, plain := range names("walkey", "walkey-owner", "walkey-api", "walkey-invalidator", "postgres", "valkey-settings", "postgres-roles") {
		if !slices.ContainsFunc(got, func(name string) bool { return hashed(name, plain) }) {
			t.Errorf("%s has no hash in its name: %q", plain, got)
		}
	}
	if s.ConfigMaps["walkey-rules"] == nil {
		t.Errorf("walkey-rules: %q", got)
	}
}

// The checks find what they are for: each spoils what dev makes in one place.
func TestChecksFindMistakes(t *testing.T) {
	t.Parallel()
	text, err := Build(kubernetes + "/overlays/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, spoilt, want string }{
		{"an unknown field", "enableServiceLinks: false", "enableServiceLink: false", "unknown field"},
		{"a wrong type", "maxSurge: 1", "maxSurge: {}", "unmarshal"},
		{"a kind of no API", "kind: PodDisruptionBudget", "kind: PodDisruptionBudge", "no kind"},
		{"a field twice", "enableServiceLinks: false", "enableServiceLinks: false\n      enableServiceLinks: false", "already"},
		{"service links", "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{"a writable root", "readOnlyRootFilesystem: true\n        startupProbe", "privileged: true\n        startupProbe", "not restricted"},
		{"a capability kept", "drop:\n            - ALL", "drop:\n            - CHOWN", "not restricted"},
		{"a user of root", "runAsNonRoot: true", "runAsNonRoot: false", "not restricted"},
		{"a port that is none", "targetPort: admin", "targetPort: adm", "leads to port adm"},
		{"a probe elsewhere", "path: /readyz\n            port: http", "path: /readyz\n            port: web", "asks port web"},
		{"a token", "automountServiceAccountToken: false\nkind: ServiceAccount", "automountServiceAccountToken: true\nkind: ServiceAccount", "without a token"},
		{"too much memory asked", "memory: 320Mi", "memory: 3200Mi", "requests more memory"},
		{"a high GOMEMLIMIT", "value: 400MiB", "value: 500MiB", "GOMEMLIMIT"},
		{"unavailable pods", "maxUnavailable: 0", "maxUnavailable: 1", "makes pods unavailable"},
		{"no preStop", "sleep:\n              seconds: 5", "httpGet:\n              port: 1", "nothing waits"},
		{"a short grace", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 20", "killed before"},
		{"a policy for nobody", "app.kubernetes.io/name: valkey\n  policyTypes", "app.kubernetes.io/name: velkey\n  policyTypes", "selects no pods"},
		{"a budget for nobody", "maxUnavailable: 1\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: walkey-api", "maxUnavailable: 1\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: walkey-apy", "PodDisruptionBudget"},
		{"no default deny", "podSelector: {}", "podSelector:\n    matchLabels:\n      app.kubernetes.io/name: valkey", "no NetworkPolicy denies"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spoilt := strings.Replace(string(text), c.old, c.spoilt, 1)
			if spoilt == string(text) {
				t.Fatalf("there is no %q to spoil", c.old)
			}
			var problems []string
			if s, err := Decode([]byte(spoilt)); err != nil {
				problems = []string{err.Error()}
			} else {
				problems = s.Check()
			}
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, c.want) }) {
				t.Errorf("want %q, got %q", c.want, problems)
			}
		})
	}
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"/api", "serve", "--nonsense=1"}, "does not know"},
		{[]string{"/api", "serf"}, "no command"},
		{[]string{"/apy"}, "no program"},
	} {
		if got := programs.CheckCommand(c.words); len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%q: %q", c.words, got)
		}
	}
	if got := programs.CheckVariables(map[string]string{"VALKEY_HOSTS": "", "VALKEY_HOST": "", "DATABASE_URL_FILE": "", "SLOT_NAME": ""}); len(got) != 1 {
		t.Errorf("variables: %q", got)
	}
}

// The alerts of the component are those of deploy/prometheus.
func TestAlertsAreTheSame(t *testing.T) {
	t.Parallel()
	const alerts = root + "/deploy/prometheus/alerts.yaml"
	rules, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	const path = kubernetes + "/components/monitoring/alerts.yaml"
	want := PrometheusRule(rules)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shipped, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(shipped) != want {
		t.Errorf("%s does not have the alerts of %s: run `make prometheusrule`", path, alerts)
	}
}
