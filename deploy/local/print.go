package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// The colours that are used, as ANSI escape sequences.
const (
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// colourful tells whether to print colours: on a terminal, unless NO_COLOR or a dumb terminal says otherwise.
func colourful(f *os.File, getenv func(string) string) bool {
	if getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printer prints for people. It belongs to one goroutine.
type printer struct {
	out    io.Writer
	colour bool
}

func (p *printer) paint(colour, text string) string {
	if !p.colour {
		return text
	}
	return colour + text + plain
}

func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(p.out, format+"\n", args...)
}

// done tells that something is there, and how long it took.
func (p *printer) done(took time.Duration, format string, args ...any) {
	p.line("%s %s %s", p.paint(green, "ok"), fmt.Sprintf(format, args...), p.paint(faint, "("+seconds(took)+")"))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// logs is where the processes of a stack log to, a line at a time. The end of each one's log is kept.
type logs struct {
	out io.Writer

	mu   sync.Mutex
	show bool // guarded by mu: pass lines on to out
}

func (l *logs) shown(show bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show = show
}

// named is the writer for one process.
func (l *logs) named(name string) *namedLog { return &namedLog{logs: l, name: name} }

const keptLog = 4 << 10

type namedLog struct {
	logs *logs
	name string

	// Guarded by logs.mu.
	rest []byte // a line without its end yet
	tail []byte
}

func (n *namedLog) Write(b []byte) (int, error) {
	n.logs.mu.Lock()
	defer n.logs.mu.Unlock()
	n.rest = append(n.rest, b...)
	for {
		line, rest, ok := bytes.Cut(n.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		n.tail = append(append(n.tail, line...), '\n')
		if len(n.tail) > 2*keptLog {
			n.tail = append(n.tail[:0], n.tail[len(n.tail)-keptLog:]...)
		}
		if n.logs.show {
			fmt.Fprintf(n.logs.out, "%-11s | %s\n", n.name, line)
		}
		n.rest = rest
	}
}

func (n *namedLog) String() string {
	n.logs.mu.Lock()
	defer n.logs.mu.Unlock()
	return string(n.tail)
}
