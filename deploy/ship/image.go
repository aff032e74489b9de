package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	userID      = "65532"
	zoneinfo    = "usr/share/zoneinfo.zip"
	authorities = "etc/ssl/certs/ca-certificates.crt"
)

// Image puts programs that were built for an architecture into an image with the content of deploy/Dockerfile's.
func (r Release) Image(ctx context.Context, arch, folder string) (v1.Image, error) {
	zones, err := r.goFile(ctx, "lib", "time", "zoneinfo.zip")
	if err != nil {
		return nil, err
	}
	roots, err := systemAuthorities()
	if err != nil {
		return nil, err
	}
	base, err := layer([]string{"etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/share"}, []entry{
		{name: "etc/group", text: "walkey:x:" + userID + ":\n", mode: 0o644},
		{name: "etc/passwd", text: "walkey:x:" + userID + ":" + userID + "::/:/nonexistent\n", mode: 0o644},
		{name: authorities, file: roots, mode: 0o644},
		{name: zoneinfo, file: zones, mode: 0o644},
	})
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, p := range programs {
		entries = append(entries, entry{name: p, file: filepath.Join(folder, p), mode: 0o755})
	}
	own, err := layer(nil, entries)
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{Layer: base, MediaType: types.OCILayer}, mutate.Addendum{Layer: own, MediaType: types.OCILayer})
	if err != nil {
		return nil, fmt.Errorf("putting the image together: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's settings: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", arch, v1.Time{Time: epoch}
	file.Config = r.config()
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, fmt.Errorf("writing the image's settings: %w", err)
	}
	return mutate.ConfigMediaType(image, types.OCIConfigJSON), nil
}

// config is what deploy/Dockerfile says behind FROM scratch; a test holds them together.
func (r Release) config() v1.Config {
	return v1.Config{
		User:         userID + ":" + userID,
		Cmd:          []string{"/api"},
		Env:          []string{"PATH=/", "ZONEINFO=/" + zoneinfo},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "8081/tcp": {}, "9090/tcp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "walkey",
			"org.opencontainers.image.description": "A cache that stays true to Postgres: api and invalidator",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     r.Version,
			"org.opencontainers.image.revision":    r.Revision,
		},
	}
}

func layer(folders []string, entries []entry) (v1.Layer, error) {
	content, err := pack(folders, entries)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	return l, nil
}

// goFile is a file of the Go installation that builds the source.
func (r Release) goFile(ctx context.Context, path ...string) (string, error) {
	ask := exec.CommandContext(ctx, "go", "env", "GOROOT")
	ask.Dir = r.Source
	root, err := ask.Output()
	if err != nil {
		return "", fmt.Errorf("asking where Go is: %w", err)
	}
	return filepath.Join(append([]string{strings.TrimSpace(string(root))}, path...)...), nil
}

// systemAuthorities is the file of certificate authorities of this machine.
func systemAuthorities() (string, error) {
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("this machine has no file of certificate authorities; install ca-certificates")
}

// WriteImages builds and writes the images of all architectures: one OCI layout with an index, and one file each for docker load.
func (r Release) WriteImages(ctx context.Context, out string) error {
	folder, err := os.MkdirTemp("", "walkey-image-")
	if err != nil {
		return fmt.Errorf("folder for the programs: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range r.Arches {
		own := filepath.Join(folder, arch)
		if err := r.Build(ctx, arch, own); err != nil {
			return err
		}
		image, err := r.Image(ctx, arch, own)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
		if err := os.MkdirAll(out, 0o755); err != nil {
			return fmt.Errorf("folder for the image: %w", err)
		}
		tag, err := name.NewTag("walkey:" + r.Version)
		if err != nil {
			return fmt.Errorf("naming the image: %w", err)
		}
		file := filepath.Join(out, "image-"+arch+".tar")
		if err := tarball.WriteToFile(file, tag, image); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
		digest, err := image.Digest()
		if err != nil {
			return fmt.Errorf("the image's digest: %w", err)
		}
		fmt.Printf("%s  %s  linux/%s\n", digest, file, arch)
	}
	oci := filepath.Join(out, "image")
	if err := os.RemoveAll(oci); err != nil {
		return fmt.Errorf("removing the former layout: %w", err)
	}
	if _, err := layout.Write(oci, index); err != nil {
		return fmt.Errorf("writing the layout: %w", err)
	}
	return nil
}
