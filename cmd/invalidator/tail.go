package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"walkey/internal/console"
	"walkey/internal/program"
	"walkey/internal/status"
)

type tailCommand struct {
	Serving serving `embed:""`

	Table []string `sep:"none" placeholder:"TABLE" help:"Only transactions that changed this table: schema.name, or a name of schema public. Can be repeated."`
	Key   []string `sep:"none" placeholder:"KEY" help:"Only transactions that deleted this key, with or without the prefix; a * stands for any text. Can be repeated."`
	JSON  bool     `name:"json" help:"Print a line of JSON for each event, as is done off a terminal."`
}

// Run prints events until ctx ends.
func (c *tailCommand) Run(ctx context.Context, p *program.Process) error {
	client := console.NewClient(string(c.Serving.InvalidatorAddr))
	defer client.Close()
	pretty := !c.JSON && p.OnTerminal(p.Stdout)
	err := client.Tail(ctx, console.Filter{Tables: c.Table, Keys: c.Key}, console.Reader{
		Show: func(e console.Event, line []byte) error {
			if pretty {
				return write(p.Stdout, eventText(p, &e)+"\n")
			}
			return write(p.Stdout, string(line)+"\n")
		},
		Begun: func() { fmt.Fprintf(p.Stderr, "%s: following %s\n", p.Name, client.Base()) },
		Lost:  func(err error) { fmt.Fprintf(p.Stderr, "%s: %v; trying again\n", p.Name, err) },
	})
	if errors.Is(err, console.ErrNoProcess) {
		return fmt.Errorf("tail: %w. Start one, or say by INVALIDATOR_ADDR where it serves; without one, invalidator status asks the servers", err)
	}
	return err
}

// eventText is an event in a line.
func eventText(p *program.Process, e *console.Event) string {
	paint := func(c program.Colour, text string) string { return p.Paint(p.Stdout, c, printable(text)) }
	clock := paint(program.Grey, e.At.Local().Format("15:04:05.000")) + "  "
	if e.Transaction != nil {
		return clock + transactionText(paint, e.Transaction)
	}
	switch e.Type {
	case console.TypeRole:
		return clock + paint(program.Green, "role: "+e.Role)
	case console.TypeWaiting:
		return clock + paint(program.Yellow, "waiting: "+e.Reason+", "+e.Detail)
	case console.TypeSessionEnd:
		return clock + paint(program.Red, "the session ended: "+e.Reason)
	case console.TypeResync:
		return clock + paint(program.Yellow, fmt.Sprintf("resynchronisation %s: %s; %s deleted in %s", e.State, e.Reason, status.Count(e.Deleted, "key"), seconds(e.Seconds)))
	case console.TypeCatalog:
		return clock + paint(program.Yellow, fmt.Sprintf("%s changed: %s; %s deleted", strings.Join(e.Subjects, ", "), e.Reason, status.Count(e.Deleted, "key")))
	case console.TypeUncovered:
		if len(e.Subjects) == 0 {
			return clock + paint(program.Green, "every table is covered again")
		}
		return clock + paint(program.Yellow, "not every change reaches the stream of "+strings.Join(e.Subjects, ", "))
	case console.TypeMissed:
		return clock + paint(program.Yellow, status.Count(int(e.Missed), "event")+" went by too fast to be shown")
	}
	return clock + paint(program.Grey, e.Type)
}

func transactionText(paint func(program.Colour, string) string, t *console.Transaction) string {
	var b strings.Builder
	took := time.Duration(t.Milliseconds * float64(time.Millisecond))
	text := fmt.Sprintf("%.1f ms", t.Milliseconds)
	if took >= time.Second {
		text = status.Seconds(took)
	}
	fmt.Fprintf(&b, "%s", paint(program.Green, fmt.Sprintf("%9s", text)))
	for _, table := range t.Tables {
		b.WriteString("  " + paint(program.Bold, table.Table))
		for _, kind := range []struct {
			name string
			n    int
		}{{"INSERT", table.Inserts}, {"UPDATE", table.Updates}, {"DELETE", table.Deletes}, {"TRUNCATE", table.Truncates}} {
			switch {
			case kind.n == 1:
				b.WriteString(" " + kind.name)
			case kind.n > 1:
				b.WriteString(" " + kind.name + " × " + status.Thousands(kind.n))
			}
		}
		b.WriteString(shortList(table.Rows, table.Inserts+table.Updates+table.Deletes, 3))
	}
	b.WriteString("  " + paint(program.Grey, "→"))
	keys := append(append([]string{}, t.Keys...), t.Patterns...)
	if len(keys) == 0 {
		return b.String() + " no key"
	}
	b.WriteString(shortList(keys, t.KeyCount+t.PatternCount, 4))
	return b.String() + "  " + paint(program.Grey, fmt.Sprintf("%s there", status.Thousands(t.Existed)))
}

// shortList gives the first of a list, of which there are all.
func shortList(list []string, all, most int) string {
	if len(list) == 0 {
		return ""
	}
	shown := min(len(list), most)
	text := " " + printable(strings.Join(list[:shown], ", "))
	if all > shown {
		text += fmt.Sprintf(" and %s more", status.Thousands(all-shown))
	}
	return text
}

// printable writes control characters as Go does, so that what stands in a row or a key can't talk to the terminal.
func printable(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
