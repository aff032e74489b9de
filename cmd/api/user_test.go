package main

import (
	"bytes"
	"strings"
	"testing"

	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/program"
)

func TestUsers(t *testing.T) {
	t.Parallel()
	url := "DATABASE_URL=" + embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	for _, tt := range []struct {
		args  []string
		stdin string
		code  int
		want  string
	}{
		{[]string{"user", "list"}, "", 0, "ID  NAME"},
		{[]string{"user", "list", "--json"}, "", 0, `{"editors":[]}`},
		{[]string{"user", "add", "ada", "--display-name=Ada L.", "--language=ru"}, "correct horse\n", 0, "Added editor ada."},
		{[]string{"user", "add", "ada"}, "correct horse", 1, "there is an editor of this name already"},
		{[]string{"user", "add", "bob"}, "", 1, "holds no password"},
		{[]string{"user", "add", "bob"}, "short\n", 1, "the password has 5 bytes"},
		{[]string{"user", "add", "bob", "--json"}, "correct horse\r\nsecond line\n", 0, `"username":"bob"`},
		{[]string{"user", "passwd", "bob"}, "another horse\n", 0, "Changed the password of bob."},
		{[]string{"user", "passwd", "eve"}, "another horse\n", 1, "there is no editor of this name"},
		{[]string{"user", "deactivate", "bob", "--json"}, "", 0, `"is_active":false`},
		{[]string{"user", "deactivate", "eve"}, "", 1, "there is no editor of this name"},
		{[]string{"user", "list"}, "", 0, "1   ada   Ada L.        ru        true"},
		{[]string{"user", "list", "--json"}, "", 0, `"username":"bob","display_name":"","language":"en","is_active":false`},
	} {
		var stdout, stderr bytes.Buffer
		code := program.Run(t.Context(), &program.Process{
			Name: "api", Args: tt.args, Environ: []string{url}, Dir: t.TempDir(),
			Stdin: strings.NewReader(tt.stdin), Stdout: &stdout, Stderr: &stderr,
		}, description, new(commandLine))
		if code != tt.code || !strings.Contains(stdout.String()+stderr.String(), tt.want) {
			t.Errorf("%v: exit code %d, %q\n%s", tt.args, code, stdout.String(), stderr.String())
		}
		if strings.Contains(stdout.String()+stderr.String(), "horse") {
			t.Errorf("%v: the password is printed", tt.args)
		}
	}
}
