// Package program is what Walkey's programs do alike: it turns the command line and the environment into options, runs
// the chosen command until a signal, serves HTTP with time limits and drains it, and answers health questions.
//
// It guarantees that every mistake in the configuration is reported at once, each with the variable and the flag that
// it concerns, that no secret is printed while doing so, and that a program exits with 0 when its work is done, 1 when
// it failed and 2 when it was used or configured wrongly. It does not open connections: a configuration that is well
// formed may still name a server that does not exist.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of every program and sub-command.
const (
	ExitDone   = 0 // the work is done, or the program was asked to stop
	ExitFailed = 1 // the work could not be done
	ExitUsage  = 2 // wrong usage or configuration; nothing was started
)

// Process is what a program sees of the world around it. Commands get it as an argument of their Run method.
type Process struct {
	Name    string   // of the program, as messages name it
	Args    []string // without the program's own name
	Environ []string // "NAME=value", as os.Environ gives it
	Dir     string   // where .env is looked for; "" is the working directory
	Stdin   io.Reader
	Stdout  io.Writer // results
	Stderr  io.Writer // logs, progress and mistakes
}

// Command is what a command of a grammar does.
type Command interface {
	Run(context.Context, *Process) error
}

// Main runs the program that grammar describes and ends the process with its exit code.
//
// Grammar is a pointer to a struct in kong's terms; its commands are of type [Command].
// The context ends with the first SIGINT or SIGTERM; a second one ends the process at once.
func Main(name, description string, grammar any) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default action is back, so that the second one kills.
	context.AfterFunc(ctx, stop)
	code := Run(ctx, &Process{
		Name:    name,
		Args:    os.Args[1:],
		Environ: os.Environ(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	}, description, grammar)
	os.Exit(code)
}

// Run parses the command line and the environment of p into grammar, runs the chosen command and gives the exit code.
// An error of the command is printed on p.Stderr here, and nowhere else. When ctx ends, the command is expected to stop
// and to return nil if stopping is how its work ends.
func Run(ctx context.Context, p *Process, description string, grammar any) int {
	command, err := parse(p, description, grammar)
	if err == nil && command == nil { // help was printed
		return ExitDone
	}
	if err == nil {
		err = command.Run(ctx, p)
	}
	if err == nil {
		return ExitDone
	}
	fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
	if _, ok := errors.AsType[*UsageError](err); ok {
		return ExitUsage
	}
	return ExitFailed
}

// UsageError is an error that ends a program with ExitUsage: whoever started it must start it differently.
type UsageError struct {
	Message string
}

func (e *UsageError) Error() string { return e.Message }
