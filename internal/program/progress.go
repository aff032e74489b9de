package program

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressAfter is how long something runs before its progress is shown.
const progressAfter = time.Second

// Progress shows on a terminal how far something has come that takes its time. Off a terminal it shows nothing.
type Progress struct {
	what  string
	to    io.Writer // nil off a terminal
	total int64
	done  int64
	begun time.Time
	bar   *progressbar.ProgressBar // nil until it is shown
}

// Progress begins to show something of that many steps on Stderr; -1 is of unknown length. Done must be called.
func (p *Process) Progress(what string, total int64) *Progress {
	shown := &Progress{what: what, total: total, begun: time.Now()}
	if onTerminal(p.Stderr) {
		shown.to = p.Stderr
	}
	return shown
}

// Add says that n more steps are done.
func (p *Progress) Add(n int) { p.add(int64(n), time.Now()) }

func (p *Progress) add(n int64, now time.Time) {
	p.done += n
	if p.to == nil || now.Sub(p.begun) < progressAfter {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(p.total,
			progressbar.OptionSetDescription(p.what),
			progressbar.OptionSetWriter(p.to),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetSpinnerChangeInterval(0), // else it has a goroutine of its own
			progressbar.OptionShowCount(),
			progressbar.OptionClearOnFinish(),
		)
	}
	_ = p.bar.Set64(p.done) // what can't be shown is no error of what is done
}

// Done takes it off the terminal.
func (p *Progress) Done() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
