package embedded

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"walkey/internal/child"
)

// templateCount is the file in a template that tells how many others there are: a cleaner of temporary files may have taken some.
const templateCount = "files.count"

// newData makes the data folder of a new cluster at path. initdb takes 1.5 s, so it runs once for each version and user, and what
// it made is kept in the system's folder for temporary files and copied.
func newData(ctx context.Context, i installation, owner *syscall.Credential, path string) error {
	uid := userID(owner)
	// The name does not begin with folderPrefix: sweep must not take it.
	template := filepath.Join(os.TempDir(), fmt.Sprintf("walkey_initdb_%s_%d", i.version, uid))
	if !wholeTemplate(template, uid) {
		if err := makeTemplate(ctx, i, owner, template); err != nil {
			return err
		}
	}
	if err := os.CopyFS(path, os.DirFS(template)); err != nil {
		return fmt.Errorf("copy %s: %w", template, err)
	}
	if err := os.Chmod(path, 0o700); err != nil { // Postgres insists
		return err
	}
	return give(path, owner)
}

// wholeTemplate tells whether there is a template that the user made and that is complete.
func wholeTemplate(template string, uid int) bool {
	info, err := os.Lstat(template)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		return false
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != uid {
		return false
	}
	text, err := os.ReadFile(filepath.Join(template, templateCount))
	if err != nil {
		return false
	}
	want, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return false
	}
	have, err := countFiles(template)
	return err == nil && have == want+1
}

func countFiles(path string) (int, error) {
	n := 0
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	return n, err
}

// makeTemplate runs initdb beside the template's place and moves the result there. Several processes may do so at the same time.
func makeTemplate(ctx context.Context, i installation, owner *syscall.Credential, template string) error {
	f, err := openFolder("", owner)
	if err != nil {
		return err
	}
	defer func() { _ = f.remove() }()
	data := filepath.Join(f.path, "data")
	var log logBuffer
	if err := child.Run(ctx, child.Command{
		Path: filepath.Join(i.bin, "initdb"),
		Args: []string{
			"--pgdata", data, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
		},
		Dir: f.path, Env: serverEnv(), Output: &log, User: owner,
	}); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, log.String())
	}
	n, err := countFiles(data)
	if err != nil {
		return err
	}
	count := filepath.Join(data, templateCount)
	if err := os.WriteFile(count, []byte(strconv.Itoa(n)+"\n"), 0o600); err != nil {
		return err
	}
	if err := give(count, owner); err != nil {
		return err
	}
	uid := userID(owner)
	if _, err := os.Lstat(template); err == nil && !wholeTemplate(template, uid) {
		if err := os.RemoveAll(template); err != nil {
			return fmt.Errorf("remove a template that is not whole: %w", err)
		}
	}
	if err := os.Rename(data, template); err != nil && !wholeTemplate(template, uid) {
		return fmt.Errorf("keep the new template: %w", err)
	}
	return nil
}

// serverEnv is the environment of the servers: nothing of the caller's (PGPORT, PGDATA, a locale) reaches them.
func serverEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/"}
}
