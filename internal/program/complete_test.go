package program_test

import (
	"bytes"
	"testing"

	"walkey/internal/program"
)

// groups is a program whose commands have commands, arguments and a flag that must be given.
type groups struct {
	User struct {
		Add    withArguments `cmd:"" help:"Add."`
		Remove withArguments `cmd:"" help:"Remove."`
	} `cmd:"" help:"Users."`
	Version program.Version `cmd:"" help:"Say which build this is."`
}

type withArguments struct {
	work   `embed:""`
	Name   string `arg:"" help:"Name."`
	Second string `arg:"" optional:"" help:"Another."`
	Reason string `required:"" help:"Why."`
}

func TestIncompleteCommandLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, program.ExitDone, ""},
		{[]string{"user", "add", "ann", "--reason=new"}, program.ExitDone, ""},
		{nil, program.ExitUsage, "groups: expected one of \"user\", \"version\"; see groups --help\n"},
		{[]string{"user"}, program.ExitUsage, "groups: expected one of \"add\", \"remove\"; see groups --help\n"},
		{[]string{"user", "add", "--reason=new"}, program.ExitUsage, "groups: expected \"<name>\"; see groups --help\n"},
		{[]string{"user", "add", "ann"}, program.ExitUsage, "groups: expected \"--reason\"; see groups --help\n"},
	} {
		var stdout, stderr bytes.Buffer
		p := &program.Process{Name: "groups", Args: c.args, Dir: t.TempDir(), Stdout: &stdout, Stderr: &stderr}
		if code := program.Run(t.Context(), p, "Has groups.", new(groups)); code != c.code || stderr.String() != c.want {
			t.Errorf("%q: exit code %d, %q; want %d, %q", c.args, code, stderr.String(), c.code, c.want)
		}
	}
}
