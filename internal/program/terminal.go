package program

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Colour of a piece of text on a terminal.
type Colour string

// The colours, as ANSI escape codes know them.
const (
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
	Grey   Colour = "90"
	Bold   Colour = "1"
)

// Paint gives text in a colour if w is a terminal and NO_COLOR is not set (https://no-color.org), else text as it is.
func (p *Process) Paint(w io.Writer, c Colour, text string) string {
	if !onTerminal(w) || slices.ContainsFunc(p.Environ, func(s string) bool {
		value, found := strings.CutPrefix(s, "NO_COLOR=")
		return found && value != ""
	}) {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// OnTerminal reports whether w is a terminal.
func (p *Process) OnTerminal(w io.Writer) bool { return onTerminal(w) }

// ErrNotAsked says that there is nobody who could be asked.
var ErrNotAsked = errors.New("standard input is no terminal")

// Confirm asks on Stderr and reads the answer from Stdin: yes only when it is "y" or "yes". Off a terminal it asks
// nobody and gives ErrNotAsked.
func (p *Process) Confirm(question string) (bool, error) {
	if file, ok := p.Stdin.(*os.File); !ok || !isTerminal(file) {
		return false, ErrNotAsked
	}
	fmt.Fprintf(p.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(p.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

func onTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && isTerminal(file)
}

// isTerminal takes any character device but the null device for a terminal.
func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// Size is a number of bytes for people.
func Size(bytes int64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 10<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	case bytes >= 10<<10:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
