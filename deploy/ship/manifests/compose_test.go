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

// added are the files that the Dockerfile's target adds to what it is built upon.
func added(t *testing.T, target string) (files []string) {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, stage, found := strings.Cut(string(text), " AS "+target+"\n")
	if !found {
		t.Fatalf("the Dockerfile has no target %s", target)
	}
	stage, _, _ = strings.Cut(stage, "\nFROM ")
	for _, m := range regexp.MustCompile(`(?m)^COPY --from=\w+ \S+ (\S+)$`).FindAllStringSubmatch(stage, -1) {
		files = append(files, m[1])
	}
	return files
}

// Every server has a health check, whose command is in its image, and which asks where it listens by default.
func TestComposeHealth(t *testing.T) {
	t.Parallel()
	project := compose(t, "observe")
	// What the images of others are known to have.
	theirs := map[string]string{"postgres": "pg_isready", "valkey": "valkey-cli", "prometheus": "wget", "grafana": "wget"}
	listens := map[string]string{"api": "API_ADDR", "invalidator": "INVALIDATOR_ADDR"}
	others := map[string]string{"prometheus": ":9090/-/ready", "grafana": ":3000/api/health"}
	url := regexp.MustCompile(`^http://127\.0\.0\.1(:\d+)(/\S+)$`)
	for name, service := range project.Services {
		check := service.HealthCheck
		if service.Restart != "unless-stopped" {
			if check != nil {
				t.Errorf("%s ends by itself, and has a health check", name)
			}
			continue
		}
		if check == nil || len(check.Test) < 2 {
			t.Errorf("%s has no health check", name)
			continue
		}
		command, last := check.Test[1], check.Test[len(check.Test)-1]
		asked := url.FindStringSubmatch(last)
		switch variable := listens[name]; {
		case variable != "":
			if check.Test[0] != "CMD" || !slices.Contains(added(t, service.Build.Target), command) {
				t.Errorf("%s: %q is not in its image", name, check.Test)
			}
			if set := service.Environment[variable]; set != nil || asked == nil || asked[1] != programs.Default(name, variable) || asked[2] != readiness(t, name) {
				t.Errorf("%s: %s is not where it says that it is ready", name, last)
			}
		case !strings.HasPrefix(command, theirs[name]) || theirs[name] == "":
			t.Errorf("%s: whether its image has %q is not known", name, command)
		case others[name] != "" && (asked == nil || asked[1]+asked[2] != others[name]):
			t.Errorf("%s: %s is not where it says that it is ready", name, last)
		}
	}
}

// readiness is the path by which Kubernetes asks the program; that it answers there is tried by running the image.
func readiness(t *testing.T, program string) string {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/kubernetes/base/" + program + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`readinessProbe:\s+httpGet: \{path: ([^,}]+), port: http\}`).FindStringSubmatch(string(text))
	if m == nil {
		t.Fatalf("%s has no readiness probe by HTTP", program)
	}
	return m[1]
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
