package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"walkey/internal/api"
	"walkey/internal/program"
)

// user is the group of sub-commands about editors.
type user struct {
	Add        userAdd        `cmd:"" help:"Add an editor. The password is the first line of the standard input."`
	Passwd     userPasswd     `cmd:"" help:"Give an editor a new password, the first line of the standard input. Sessions begun with the old one end."`
	List       userList       `cmd:"" help:"List the editors."`
	Deactivate userDeactivate `cmd:"" help:"Take an editor's access away, sessions included."`
}

// maxPasswordLine bounds what is read of the standard input.
const maxPasswordLine = 4096

// readPassword gives the first line of the standard input without its end.
func readPassword(in io.Reader) (string, error) {
	if in == nil {
		return "", errors.New("no standard input to read the password from")
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPasswordLine))
	if err != nil {
		return "", fmt.Errorf("reading the password from the standard input: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", errors.New("the standard input holds no password; pipe it into this command")
	}
	return line, nil
}

// one is what the sub-commands about one editor share.
type one struct {
	database `embed:""`
	Name     string `arg:"" help:"The editor's name."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

// do opens the database, runs work and says what became of the editor.
func (c *one) do(ctx context.Context, p *program.Process, done string, work func(*api.Store) (api.Editor, error)) error {
	store, _, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer store.Close()
	editor, err := work(store)
	if err != nil {
		return fmt.Errorf("%q: %w", c.Name, err)
	}
	if c.JSON {
		return program.PrintJSON(p.Stdout, editor)
	}
	_, err = fmt.Fprintf(p.Stdout, done+"\n", editor.Username)
	return err
}

type userAdd struct {
	one         `embed:""`
	DisplayName string `placeholder:"TEXT" help:"How the editor is called where it is shown."`
	Language    string `default:"en" placeholder:"TAG" help:"The editor's language."`
}

// Run adds an editor.
func (c *userAdd) Run(ctx context.Context, p *program.Process) error {
	password, err := readPassword(p.Stdin)
	if err != nil {
		return err
	}
	return c.do(ctx, p, "Added editor %s.", func(store *api.Store) (api.Editor, error) {
		return store.AddEditor(ctx, c.Name, c.DisplayName, c.Language, password)
	})
}

type userPasswd struct {
	one `embed:""`
}

// Run changes a password.
func (c *userPasswd) Run(ctx context.Context, p *program.Process) error {
	password, err := readPassword(p.Stdin)
	if err != nil {
		return err
	}
	return c.do(ctx, p, "Changed the password of %s.", func(store *api.Store) (api.Editor, error) {
		return store.SetPassword(ctx, c.Name, password)
	})
}

type userDeactivate struct {
	one `embed:""`
}

// Run takes an editor's access away.
func (c *userDeactivate) Run(ctx context.Context, p *program.Process) error {
	return c.do(ctx, p, "Deactivated %s.", func(store *api.Store) (api.Editor, error) {
		return store.DeactivateEditor(ctx, c.Name)
	})
}

type userList struct {
	database `embed:""`
	JSON     bool `name:"json" help:"Print JSON."`
}

// Run lists the editors.
func (c *userList) Run(ctx context.Context, p *program.Process) error {
	store, _, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer store.Close()
	editors, err := store.Editors(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		if editors == nil {
			editors = []api.Editor{}
		}
		return program.PrintJSON(p.Stdout, struct {
			Editors []api.Editor `json:"editors"`
		}{editors})
	}
	table := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tDISPLAY NAME\tLANGUAGE\tACTIVE")
	for _, e := range editors {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%t\n", e.ID, e.Username, e.DisplayName, e.Language, e.Active)
	}
	return table.Flush()
}
