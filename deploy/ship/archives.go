package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/CycloneDX/cyclonedx-go"
)

// WriteArchives builds and writes an archive and a list of what is in it (CycloneDX) for each architecture, and their checksums.
func (r Release) WriteArchives(ctx context.Context, out string) error {
	folder, err := os.MkdirTemp("", "walkey-archive-")
	if err != nil {
		return fmt.Errorf("folder for the programs: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("folder for the archives: %w", err)
	}
	var sums bytes.Buffer
	write := func(name string, content []byte) error {
		if err := os.WriteFile(filepath.Join(out, name), content, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		sum := sha256.Sum256(content)
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), name)
		return nil
	}
	for _, arch := range r.Arches {
		own := filepath.Join(folder, arch)
		if err := r.Build(ctx, arch, own); err != nil {
			return err
		}
		name := fmt.Sprintf("walkey_%s_linux_%s", r.Version, arch)
		archive, err := r.archive(name, own)
		if err != nil {
			return err
		}
		if err := write(name+".tar.gz", archive); err != nil {
			return err
		}
		bill, err := r.bill(name, own)
		if err != nil {
			return err
		}
		if err := write(name+".cdx.json", bill); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(out, "SHA256SUMS"), sums.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the checksums: %w", err)
	}
	fmt.Print(sums.String())
	return nil
}

func (r Release) archive(name, folder string) ([]byte, error) {
	var entries []entry
	for _, text := range []string{"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md"} {
		entries = append(entries, entry{name: name + "/" + text, file: filepath.Join(r.Source, text), mode: 0o644})
	}
	for _, p := range programs {
		entries = append(entries, entry{name: name + "/" + p, file: filepath.Join(folder, p), mode: 0o755})
	}
	plain, err := pack([]string{name}, entries)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("compressing: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("compressing: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compressing: %w", err)
	}
	return b.Bytes(), nil
}

// bill lists the modules that are linked into the programs, as the programs themselves say.
func (r Release) bill(name, folder string) ([]byte, error) {
	modules := map[string]cyclonedx.Component{}
	var tools string
	for _, p := range programs {
		info, err := buildinfo.ReadFile(filepath.Join(folder, p))
		if err != nil {
			return nil, fmt.Errorf("reading what %s is made of: %w", p, err)
		}
		tools = info.GoVersion
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			url := "pkg:golang/" + m.Path + "@" + m.Version
			modules[url] = cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url}
		}
	}
	std := "pkg:golang/std@" + tools
	modules[std] = cyclonedx.Component{BOMRef: std, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: tools, PackageURL: std}
	components := make([]cyclonedx.Component, 0, len(modules))
	for _, url := range slices.Sorted(maps.Keys(modules)) {
		components = append(components, modules[url])
	}
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = "" // it would be another one each time
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: name, Type: cyclonedx.ComponentTypeApplication, Name: "walkey", Version: r.Version,
		Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
	}}
	bom.Components = &components
	var b bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, fmt.Errorf("writing the bill of materials: %w", err)
	}
	return b.Bytes(), nil
}
