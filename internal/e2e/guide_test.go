package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/invalidate"
)

const guideName, guideInRussian = "from-django.md", "from-django.ru.md"

// Both guides show the same code, in the same order.
func TestGuidesShowTheSame(t *testing.T) {
	t.Parallel()
	english, russian := guide(t, guideName), guide(t, guideInRussian)
	for _, language := range []string{"yaml", "sh", "console", "sql", "python", "go"} {
		want := blocks(t, english, language)
		if diff := cmp.Diff(want, blocks(t, russian, language)); diff != "" || len(want) == 0 {
			t.Errorf("%s: %d blocks (-English +Russian):\n%s", language, len(want), diff)
		}
	}
	for _, mark := range []string{"\n#", "\n|", "\n```"} {
		if e, r := strings.Count(english, mark), strings.Count(russian, mark); e != r {
			t.Errorf("%d lines begin with %q in English, %d in Russian", e, mark[1:], r)
		}
	}
	for _, page := range []string{english, russian} {
		for _, rules := range blocks(t, page, "yaml") {
			file := filepath.Join(t.TempDir(), "rules.yaml")
			if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := invalidate.LoadRules(file, "bloodofjesus"); err != nil {
				t.Errorf("%s\n%v", rules, err)
			}
		}
		for _, snippet := range blocks(t, page, "python") {
			if out, err := exec.Command(python, "-c", "import ast, sys; ast.parse(sys.argv[1])", snippet).CombinedOutput(); err != nil {
				t.Errorf("%s\n%v\n%s", snippet, err, out)
			}
		}
	}
}

// The commands of the guide do what it says, in its order: the site is moved step by step.
func TestGuideFromDjango(t *testing.T) {
	t.Parallel()
	page := guide(t, guideName)
	s := newStack(t)
	d := s.startDjango()
	s.psql("insert into main_material (title, description, material_type, icon_name, file, is_active) values ('one', 'text', 'video', '', '', true), ('two', '', '', '', '', false)")
	s.django("run", "cache.clear()")
	if err := d.shows("one"); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer()
	run := func(script string) string {
		t.Helper()
		command := exec.Command("bash", "-eu", "-o", "pipefail", "-c", here.Replace(script))
		command.Env = append(os.Environ(), "DATABASE_URL="+s.url, "PATH="+s.valkeyShim()+":"+os.Getenv("PATH"))
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v\n%s", script, err, out)
		}
		return string(out)
	}
	shell, sql := blocks(t, page, "sh"), blocks(t, page, "sql")
	if len(shell) != 4 || len(sql) != 2 {
		t.Fatalf("%d blocks of sh and %d of sql", len(shell), len(sql))
	}

	if out := run(shell[0]); out != "logical\n" {
		t.Errorf("wal_level is %q", out)
	}
	out := run(shell[1])
	for _, line := range []string{"bloodofjesus:1:materials_list_active", "bloodofjesus:1:views.decorators.cache.cache_header.." + d.pageHash() + ".en-us.UTC"} {
		if !slices.Contains(strings.Split(out, "\n"), line) {
			t.Errorf("%s is not among\n%s", line, out)
		}
	}
	if hash := strings.Fields(out)[len(strings.Fields(out))-2]; !strings.Contains(blocks(t, page, "yaml")[0], hash) {
		t.Errorf("the rules do not name the page whose hash is %s", hash)
	}

	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(blocks(t, page, "yaml")[:1], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	invalidator := s.startInvalidator("RULES_FILE=" + file)
	if _, err := d.try("/materials/"); err != nil {
		t.Fatal(err)
	}
	here = strings.NewReplacer("http://localhost:8081", invalidator.Base)
	if out := run(shell[2]); !slices.Contains(strings.Split(out, "\n"), "0") {
		t.Errorf("the key is not gone:\n%s", out)
	}
	invalidator.stop()
	s.psql(sql[0])

	// The second step, with the built-in rules.
	api := s.startAPI()
	s.startInvalidator()
	s.psql(sql[1])
	api.waitFor(listPath, "the copied row", hasTitle("one!"))
	s.psql("insert into materials (title) values ('new')") // takes a number that is free
	api.waitFor(listPath, "the new row", hasTitle("new"))
	api.waitHit(listPath)
	here = strings.NewReplacer("http://localhost:8080", api.Base)
	eventually(t, "watching shows a hit", func() error { // the delete of the last change may still come
		if out := run(shell[3]); !strings.Contains(out, "bloodofjesus:materials_list_active") || !strings.Contains(out, "walkey; hit") {
			return fmt.Errorf("it shows\n%s", out)
		}
		return nil
	})
}

// valkeyShim gives a folder with a valkey-cli that asks this Valkey.
func (s *servers) valkeyShim() string {
	s.t.Helper()
	real, err := exec.LookPath("valkey-cli")
	if err != nil {
		s.t.Fatal(err)
	}
	folder := s.t.TempDir()
	shim := fmt.Sprintf("#!/bin/sh\nexec %s -h %s -p %s \"$@\"\n", real, s.valkey.Host(), strconv.Itoa(s.valkey.Port()))
	if err := os.WriteFile(filepath.Join(folder, "valkey-cli"), []byte(shim), 0o700); err != nil {
		s.t.Fatal(err)
	}
	return folder
}
