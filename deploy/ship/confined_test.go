package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	core "k8s.io/api/core/v1"

	"walkey/deploy/ship/manifests"
	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/freeport"
)

const patience = time.Minute

// addresses are the variables of what the programs listen on, by the names of the ports.
var addresses = map[string]map[string]string{
	"api":         {"http": "API_ADDR", "admin": "API_ADMIN_ADDR"},
	"invalidator": {"http": "INVALIDATOR_ADDR"},
}

// The image's programs run as the manifests of dev say: as their user, without capabilities, on a read-only root, with the variables, secrets
// and rules of the manifests; every probe and every port answers. Only the servers' and their own addresses are others.
func TestConfined(t *testing.T) {
	text, err := manifests.Build(root + "/deploy/kubernetes/overlays/dev")
	if err != nil {
		t.Fatal(err)
	}
	set, err := manifests.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(readable(t), "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	unpack(t, imageFrom(t, release()), rootfs)
	postgres, valkey := embeddedtest.Postgres(t), embeddedtest.Valkey(t)
	for _, name := range []string{"api", "invalidator"} {
		template := &set.Deployments["walkey-"+name].Spec.Template
		c := &confined{t: t, name: name, set: set, template: template, container: &template.Spec.Containers[0], rootfs: rootfs, ports: map[string]int{}}
		c.start(postgres, valkey)
		c.answers()
		c.isConfined()
		t.Logf("%s uses %d MiB when idle; requested are %s, the limit is %s", name, c.memory()>>20,
			c.container.Resources.Requests.Memory(), c.container.Resources.Limits.Memory())
	}
}

// readable is a temporary folder that other users can look into.
func readable(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "walkey-confined-")
	if err == nil {
		err = os.Chmod(folder, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

// confined is one container of a manifest.
type confined struct {
	t         *testing.T
	name      string
	set       *manifests.Set
	template  *core.PodTemplateSpec
	container *core.Container
	rootfs    string
	ports     map[string]int // on the host, by the container's name for them
	log       output
	pid       int
	inRunc    bool
}

// output is what a program says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the container by runc, or where that can't run by the kernel's own means.
func (c *confined) start(postgres *embedded.Postgres, valkey *embedded.Valkey) {
	t := c.t
	t.Helper()
	bundle := readable(t)
	env := c.set.Environment(c.container)
	mounts := c.volumes(bundle, postgres.URL())
	env["VALKEY_HOST"], env["VALKEY_PORT"] = valkey.Host(), strconv.Itoa(valkey.Port())
	delete(env, "VALKEY_USERNAME") // this Valkey has no users; make test-secure runs with them
	delete(env, "VALKEY_PASSWORD_FILE")
	for _, port := range c.container.Ports {
		variable := addresses[c.name][port.Name]
		free, err := freeport.Pick()
		if variable == "" || err != nil {
			t.Fatalf("port %s: %v", port.Name, err)
		}
		c.ports[port.Name], env[variable] = free, freeport.Host+":"+strconv.Itoa(free)
	}
	variables := []string{"PATH=/", "ZONEINFO=/" + zoneinfo}
	for name, value := range env {
		variables = append(variables, name+"="+value)
	}
	spec := c.spec(variables, mounts)
	ctx, cancel := context.WithCancel(context.Background())
	var command *exec.Cmd
	if c.inRunc = runs(t, spec); c.inRunc {
		t.Logf("%s runs in runc; its seccomp profile is the one thing that the cluster adds", c.name)
		write(t, filepath.Join(bundle, "config.json"), spec)
		command = exec.CommandContext(ctx, "runc", "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, "--pid-file", filepath.Join(bundle, "pid"), "walkey-"+c.name)
	} else {
		t.Logf("runc can't run here: %s runs by chroot and as its user", c.name)
		for _, m := range mounts {
			link := filepath.Join(c.rootfs, m.Destination)
			// The program before has read its own by now.
			if err := errors.Join(os.RemoveAll(link), os.CopyFS(link, os.DirFS(m.Source))); err != nil {
				t.Fatal(err)
			}
		}
		command = exec.CommandContext(ctx, spec.Process.Args[0], spec.Process.Args[1:]...)
		command.Env, command.Dir = variables, "/"
		command.SysProcAttr = &syscall.SysProcAttr{Chroot: c.rootfs, Credential: &syscall.Credential{Uid: spec.Process.User.UID, Gid: spec.Process.User.GID}}
	}
	command.Stdout, command.Stderr = &c.log, &c.log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = patience
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && command.ProcessState.ExitCode() != 0 {
			t.Errorf("%s ended with %v after SIGTERM", c.name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", c.name, c.log.String())
		}
	})
	eventually(t, c.name+" is ready", func() error { return c.get("http", c.container.ReadinessProbe.HTTPGet.Path) })
	c.pid = command.Process.Pid
	if text, err := os.ReadFile(filepath.Join(bundle, "pid")); err == nil {
		if c.pid, err = strconv.Atoi(string(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// volumes makes the folders that the container mounts, as the kubelet would.
func (c *confined) volumes(folder, url string) (mounts []specs.Mount) {
	t := c.t
	t.Helper()
	group := int(*c.template.Spec.SecurityContext.FSGroup)
	for _, m := range c.container.VolumeMounts {
		source := filepath.Join(folder, m.Name)
		if err := os.Mkdir(source, 0o755); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(c.template.Spec.Volumes, func(v core.Volume) bool { return v.Name == m.Name })
		files, mode := map[string]string{}, os.FileMode(0o644)
		switch v := c.template.Spec.Volumes[i]; {
		case v.Secret != nil:
			mode = os.FileMode(*v.Secret.DefaultMode)
			for name, content := range c.set.Secrets[v.Secret.SecretName].Data {
				files[name] = string(content)
			}
			files["database-url"] = url
		case v.ConfigMap != nil:
			files = c.set.ConfigMaps[v.ConfigMap.Name].Data
		}
		for name, content := range files {
			path := filepath.Join(source, name)
			if err := os.WriteFile(path, []byte(content), mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, 0, group); err != nil {
				t.Fatal(err)
			}
		}
		mounts = append(mounts, specs.Mount{Destination: m.MountPath, Source: source, Type: "bind", Options: []string{"rbind", "ro", "nosuid", "nodev"}})
	}
	return mounts
}

// spec is what the manifest's security contexts come to.
func (c *confined) spec(env []string, mounts []specs.Mount) *specs.Spec {
	pod, own := c.template.Spec.SecurityContext, c.container.SecurityContext
	groups := []uint32{uint32(*pod.FSGroup)}
	none := []string{}
	limit := c.container.Resources.Limits.Memory().Value()
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: c.rootfs, Readonly: *own.ReadOnlyRootFilesystem},
		Process: &specs.Process{
			Args: slices.Concat(c.container.Command, c.container.Args), Env: env, Cwd: "/",
			User:            specs.User{UID: uint32(*pod.RunAsUser), GID: uint32(*pod.RunAsGroup), AdditionalGids: groups},
			Capabilities:    &specs.LinuxCapabilities{Bounding: none, Effective: none, Inheritable: none, Permitted: none, Ambient: none},
			NoNewPrivileges: !*own.AllowPrivilegeEscalation,
		},
		Mounts: append([]specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		}, mounts...),
		Linux: &specs.Linux{
			Resources:   &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}},
			CgroupsPath: fmt.Sprintf("/walkey-confined-%d-%s", os.Getpid(), c.name),
			// The network is the host's: that is where the test's servers are.
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
		},
	}
}

// runs says whether runc can run such a container on this machine: it tries.
func runs(t *testing.T, spec *specs.Spec) bool {
	t.Helper()
	folder := readable(t)
	process := *spec.Process
	process.Args = []string{"/api", "version"}
	trial := *spec
	trial.Process = &process
	write(t, filepath.Join(folder, "config.json"), &trial)
	out, err := exec.CommandContext(t.Context(), "runc", "--root", filepath.Join(folder, "state"), "run", "--bundle", folder, "walkey-trial").CombinedOutput()
	if err != nil {
		t.Logf("runc: %v: %s", err, out)
	}
	return err == nil && strings.Contains(string(out), "api v0.0.0-test")
}

func write(t *testing.T, path string, what any) {
	t.Helper()
	text, err := json.Marshal(what)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// eventually repeats check until it gives no error, and fails the test when that does not come.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s until %s: %v", patience, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
