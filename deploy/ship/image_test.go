package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const root = "../.."

func release() Release {
	return Release{Source: root, Version: "v0.0.0-test", Revision: "0123456789abcdef", Arches: []string{runtime.GOARCH}}
}

// imageFrom writes an image and reads it back from its OCI layout.
func imageFrom(t *testing.T, r Release) v1.Image {
	t.Helper()
	out := t.TempDir()
	if err := r.WriteImages(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(filepath.Join(out, "image"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Platform.Architecture != runtime.GOARCH {
		t.Fatalf("the index: %+v %v", manifest, err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(out, "image-"+runtime.GOARCH+".tar")); err != nil {
		t.Error(err)
	}
	return image
}

// unpack puts the layers of an image into a folder, and gives what is in them.
func unpack(t *testing.T, image v1.Image, folder string) map[string]tar.Header {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]tar.Header{}
	for _, l := range layers {
		content, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(content); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimSuffix(h.Name, "/")] = *h
			path := filepath.Join(folder, h.Name)
			if h.Typeflag == tar.TypeDir {
				err = os.MkdirAll(path, 0o755)
			} else {
				var b []byte
				if b, err = io.ReadAll(r); err == nil {
					err = os.WriteFile(path, b, os.FileMode(h.Mode))
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := content.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// The image is small, holds what it should and nothing else, and is the same wherever and whenever its source is built.
func TestImage(t *testing.T) {
	r := release()
	image := imageFrom(t, r)
	folder := t.TempDir()
	got := unpack(t, image, folder)
	want := []string{"api", "etc", "etc/group", "etc/passwd", "etc/ssl", "etc/ssl/certs", authorities, "invalidator", "usr", "usr/share", zoneinfo}
	var names []string
	unpacked := int64(0)
	for name, h := range got {
		names = append(names, name)
		unpacked += h.Size
		if h.Uid != 0 || h.Mode&0o022 != 0 {
			t.Errorf("%s can be changed by others than root: %o", name, h.Mode)
		}
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("it holds %q, want %q", names, want)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	packed := manifest.Config.Size
	for _, l := range manifest.Layers {
		packed += l.Size
	}
	t.Logf("the image is %.1f MiB to pull, %.1f MiB unpacked", float64(packed)/(1<<20), float64(unpacked)/(1<<20))
	if packed >= 40<<20 {
		t.Errorf("the image is %d bytes, want less than 40 MiB", packed)
	}
	for _, p := range programs {
		out, err := os.ReadFile(filepath.Join(folder, p))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("/lib64/ld-linux")) {
			t.Errorf("%s is not static", p)
		}
	}

	elsewhere := filepath.Join(t.TempDir(), "some", "other", "place")
	for _, part := range []string{"cmd", "internal"} {
		if err := os.CopyFS(filepath.Join(elsewhere, part), os.DirFS(filepath.Join(root, part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(elsewhere, file), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again := r
	again.Source = elsewhere
	first, err1 := image.Digest()
	second, err2 := imageFrom(t, again).Digest()
	if err := errors.Join(err1, err2); err != nil || first != second {
		t.Errorf("built twice: %s and %s %v", first, second, err)
	}
	again.Version = "v0.0.1"
	if third, err := imageFrom(t, again).Digest(); err != nil || third == first {
		t.Errorf("another version is the same image: %v", err)
	}
}

// The Dockerfile can be parsed, is clean, and ends in the image that is put together without it.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range parsed.Warnings {
		t.Error(w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, description, _, message string, _ []parser.Range) {
		t.Errorf("%s: %s (%s)", rule, message, description)
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range stages {
		lines = append(lines, s.Name+" from "+strings.TrimPrefix(s.BaseName, "golang:"+strings.TrimPrefix(goVersion(t), "go")))
	}
	if len(stages) != 5 || !strings.HasPrefix(lines[0], "build from .") || lines[2] != "walkey from scratch" || lines[3] != "checked from walkey" {
		t.Fatalf("stages: %q", lines)
	}
	// What is built without a target is the image, to the byte.
	if last := stages[4]; last.BaseName != "walkey" || len(last.Commands) != 0 {
		t.Errorf("the last stage is %+v", last)
	}
	if added := stages[3].Commands; len(added) != 1 || added[0].Name() != "COPY" {
		t.Errorf("the image for Compose has more than one file besides: %v", added)
	}
	r := Release{Version: "$VERSION", Revision: "$REVISION"}
	want, got := r.config(), v1.Config{ExposedPorts: map[string]struct{}{}, Labels: map[string]string{}}
	var files []string
	for _, command := range stages[2].Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			got.User = c.User
		case *instructions.CmdCommand:
			got.Cmd = c.CmdLine
		case *instructions.EnvCommand:
			for _, pair := range c.Env {
				got.Env = append(got.Env, pair.Key+"="+pair.Value)
			}
		case *instructions.ExposeCommand:
			for _, port := range c.Ports {
				got.ExposedPorts[port+"/tcp"] = struct{}{}
			}
		case *instructions.LabelCommand:
			for _, pair := range c.Labels {
				got.Labels[strings.Trim(pair.Key, `"`)] = strings.Trim(pair.Value, `"`)
			}
		case *instructions.CopyCommand:
			for _, source := range c.SourcePaths {
				target := c.DestPath
				if strings.HasSuffix(target, "/") {
					target += filepath.Base(source)
				}
				files = append(files, strings.TrimPrefix(target, "/"))
			}
		case *instructions.ArgCommand:
		default:
			t.Errorf("%s is not compared", command.Name())
		}
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		t.Errorf("the Dockerfile's image is\n%s, the other one\n%s", b, a)
	}
	slices.Sort(files)
	if want := []string{"api", "etc/group", "etc/passwd", authorities, "invalidator", zoneinfo}; !slices.Equal(files, want) {
		t.Errorf("the Dockerfile copies %q, want %q", files, want)
	}
	for _, flag := range []string{"-trimpath", "-tags grpcnotrace", "-buildvcs=false", `-s -w -buildid= -X walkey/internal/program.version=$VERSION`, "CGO_ENABLED=0"} {
		if !strings.Contains(string(text), flag) {
			t.Errorf("the Dockerfile builds without %s", flag)
		}
	}
}

// goVersion is that of go.mod's language: major and minor.
func goVersion(t *testing.T) string {
	t.Helper()
	parts := strings.Split(runtime.Version(), ".")
	if len(parts) < 2 {
		t.Fatalf("the version of Go is %s", runtime.Version())
	}
	return parts[0] + "." + parts[1]
}

// The archives hold both programs and the texts, the bill names the modules, the checksums are right, and all are the same each time.
func TestArchives(t *testing.T) {
	make := func() (string, map[string]string) {
		out := t.TempDir()
		if err := release().WriteArchives(context.Background(), out); err != nil {
			t.Fatal(err)
		}
		sums, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for line := range strings.Lines(string(sums)) {
			var sum, name string
			if _, err := fmt.Sscan(line, &sum, &name); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != sum {
				t.Errorf("the checksum of %s is wrong", name)
			}
			all[name] = sum
		}
		return out, all
	}
	out, first := make()
	name := "walkey_v0.0.0-test_linux_" + runtime.GOARCH
	if len(first) != 2 || first[name+".tar.gz"] == "" || first[name+".cdx.json"] == "" {
		t.Fatalf("it makes %v", first)
	}
	file, err := os.Open(filepath.Join(out, name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var inside []string
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		inside = append(inside, strings.TrimPrefix(h.Name, name+"/"))
	}
	if want := []string{"", "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "api", "invalidator"}; !slices.Equal(inside, want) {
		t.Errorf("the archive holds %q, want %q", inside, want)
	}
	var bill struct {
		BOMFormat  string
		Components []struct{ Name, Version, Purl string }
	}
	text, err := os.ReadFile(filepath.Join(out, name+".cdx.json"))
	if err == nil {
		err = json.Unmarshal(text, &bill)
	}
	if err != nil || bill.BOMFormat != "CycloneDX" {
		t.Fatalf("the bill of materials: %v %.200s", err, text)
	}
	for _, module := range []string{"github.com/redis/rueidis", "github.com/jackc/pgx/v5", "std"} {
		if !slices.ContainsFunc(bill.Components, func(c struct{ Name, Version, Purl string }) bool {
			return c.Name == module && c.Version != "" && c.Purl == "pkg:golang/"+module+"@"+c.Version
		}) {
			t.Errorf("the bill does not name %s", module)
		}
	}
	if _, second := make(); fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("made twice: %v and %v", first, second)
	}
}
