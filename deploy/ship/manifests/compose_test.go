package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/rhysd/actionlint"
)

const composeFile = root + "/deploy/compose.yaml"

func compose(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{composeFile}, cli.WithProfiles(profiles), cli.WithName("walkey"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	t.Parallel()
	project := compose(t, "observe")
	for _, name := range []string{"postgres", "valkey", "migrate", "setup", "seed", "api", "invalidator", "prometheus", "grafana"} {
		if _, err := project.GetService(name); err != nil {
			t.Error(err)
		}
	}
	if plain := compose(t); len(plain.Services) != len(project.Services)-2 {
		t.Errorf("without the profile: %q", slices.Sorted(maps.Keys(plain.Services)))
	}
	for name, service := range project.Services {
		for other, dependency := range service.DependsOn {
			on, err := project.GetService(other)
			if err != nil {
				t.Error(err)
				continue
			}
			switch dependency.Condition {
			case types.ServiceConditionHealthy:
				if on.HealthCheck == nil {
					t.Errorf("%s waits for the health of %s, which has no check", name, other)
				}
			case types.ServiceConditionCompletedSuccessfully:
				if on.Restart == "unless-stopped" || on.Restart == "always" {
					t.Errorf("%s waits for the end of %s, which is restarted", name, other)
				}
			default:
				t.Errorf("%s only waits until %s has started", name, other)
			}
		}
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil || !volume.ReadOnly {
				t.Errorf("%s mounts %s (read-only: %v): %v", name, volume.Source, volume.ReadOnly, err)
			}
		}
		if service.Build == nil {
			continue
		}
		env := map[string]string{}
		for variable, value := range service.Environment {
			if value != nil {
				env[variable] = *value
			}
		}
		for _, problem := range append(programs.CheckVariables(env), programs.CheckCommand(service.Command)...) {
			t.Errorf("%s: %s", name, problem)
		}
		if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || service.User != "65532:65532" {
			t.Errorf("%s is not confined", name)
		}
		if _, err := os.Stat(filepath.Join(service.Build.Context, service.Build.Dockerfile)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"api", "invalidator"} {
		service := project.Services[name]
		if service.Deploy == nil || service.Deploy.Replicas == nil || *service.Deploy.Replicas != 2 {
			t.Errorf("%s does not run twice", name)
		}
		if host := service.Environment["VALKEY_HOST"]; host == nil || *host != "valkey" {
			t.Errorf("%s: VALKEY_HOST is %v", name, host)
		}
		if on := service.DependsOn["valkey"]; on.Condition != types.ServiceConditionHealthy {
			t.Errorf("%s does not wait for Valkey", name)
		}
	}
	if !strings.Contains(strings.Join(project.Services["postgres"].Command, " "), "wal_level=logical") {
		t.Error("Postgres does not log what is followed")
	}
}

// deploy/.env.example names exactly the variables of the file, with their defaults.
func TestComposeExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+):-([^}]*)\}`).FindAllStringSubmatch(string(text), -1) {
		want[m[1]] = m[2]
	}
	example, err := os.ReadFile(root + "/deploy/.env.example")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(example)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			got[name] = value
		}
	}
	if !maps.Equal(want, got) {
		t.Errorf("the file has %v, the example %v", want, got)
	}
	if got["VALKEY_HOST"] != "valkey" {
		t.Error("VALKEY_HOST is not the service")
	}
}

// Prometheus scrapes the services and ports that there are.
func TestComposePrometheus(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/deploy/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`names: \[(\w+)\], type: A, port: (\d+)`).FindAllStringSubmatch(string(text), -1)
	want := [][2]string{{"api", "API_ADMIN_ADDR"}, {"invalidator", "INVALIDATOR_ADDR"}}
	if len(targets) != len(want) {
		t.Fatalf("targets: %q", targets)
	}
	for i, target := range targets {
		if target[1] != want[i][0] || programs.Default(target[1], want[i][1]) != ":"+target[2] {
			t.Errorf("%q, want the port of %s", target[1:], want[i][1])
		}
	}
	for _, m := range regexp.MustCompile(`rule_files: \[(.*)\]`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(root + "/deploy/prometheus/" + m[1]); err != nil {
			t.Error(err)
		}
	}
}

// The workflow is one that GitHub understands, and runs actions at fixed commits only.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(root + "/.github/workflows/*.y*ml")
	if err != nil || len(files) == 0 {
		t.Fatalf("workflows: %q %v", files, err)
	}
	linter, err := actionlint.NewLinter(os.Stderr, &actionlint.LinterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	uses := regexp.MustCompile(`uses: (\S+)`)
	for _, file := range files {
		found, err := linter.LintFile(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range found {
			t.Error(problem)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range uses.FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`@[0-9a-f]{40}$`).MatchString(m[1]) {
				t.Errorf("%s uses %s, which may become something else", file, m[1])
			}
		}
		if !strings.Contains(string(text), ".ci/run") {
			t.Errorf("%s does not call .ci/run", file)
		}
	}
}
