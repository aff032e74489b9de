package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"time"
)

// entry is a file of an archive. Its content is that of a file, or text.
type entry struct {
	name string // path within the archive, without a leading slash; folders are made as they are needed
	file string
	text string
	mode int64
}

// epoch is when everything that is shipped was changed last, so that the same content makes the same bytes.
var epoch = time.Unix(0, 0).UTC()

// pack makes a tar of folders and files in the order given.
func pack(folders []string, entries []entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range folders {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: epoch, Format: tar.FormatPAX}); err != nil {
			return nil, fmt.Errorf("packing %s: %w", name, err)
		}
	}
	for _, e := range entries {
		content := []byte(e.text)
		if e.file != "" {
			var err error
			if content, err = os.ReadFile(e.file); err != nil {
				return nil, fmt.Errorf("packing %s: %w", e.name, err)
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(content)), ModTime: epoch, Format: tar.FormatPAX}); err != nil {
			return nil, fmt.Errorf("packing %s: %w", e.name, err)
		}
		if _, err := w.Write(content); err != nil {
			return nil, fmt.Errorf("packing %s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	return b.Bytes(), nil
}
