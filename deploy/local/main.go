// Local runs Walkey whole on this machine: a private Postgres and Valkey, and the two programs built from this source.
//
//	local demo   shows that a row edited in psql is fresh in the API, and how fast; exit code 1 when it is not
//	local up     keeps the stack running until it is interrupted
//
// It leaves no process and no file behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

type commands struct {
	Demo demo `cmd:"" help:"Show that a row edited in psql is fresh in the API, and how fast."`
	Up   up   `cmd:"" help:"Keep the stack running until it is interrupted."`
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, cancel) // a second signal ends this process at once, and the kernel its children
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, colourful(os.Stdout, os.Getenv))
	cancel()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer, colour bool) int {
	var c commands
	exit := -1
	parser, err := kong.New(&c, kong.Name("local"), kong.Description("Walkey on this machine."),
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { exit = code }))
	if err != nil {
		fmt.Fprintln(stderr, "local:", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintln(stderr, "local:", err)
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	switch err := command.Run(&printer{out: stdout, colour: colour}, &logs{out: stderr}); {
	case err == nil:
		return exitDone
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "local: interrupted")
		return exitFailed
	default:
		fmt.Fprintln(stderr, "local:", err)
		return exitFailed
	}
}
