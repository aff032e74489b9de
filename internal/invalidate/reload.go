package invalidate

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"time"

	"go.uber.org/zap"

	"walkey/internal/pace"
)

// reloadEvery is the time between two looks at the rules file. It is read whole: what a mounted ConfigMap swaps are links, and
// neither times nor notices of the file system can be relied on across all kinds of mounts.
const reloadEvery = time.Second

// errOtherRules ends a session because the rules are others now.
var errOtherRules = errors.New("the rules changed")

// A RulesFile looks whether the rules file has changed while its rules are in use. Rules that are mistaken are logged, shown
// in the metrics, and change nothing.
type RulesFile struct {
	path, prefix string
	metrics      *Metrics
	log          *zap.Logger

	looked  [sha256.Size]byte // of the content that was last looked at; the goroutine of Watch alone uses it
	missing bool              // the last look found nothing to read; likewise
	present *Rules            // what was last handed out; likewise
	next    chan *Rules       // holds the newest rules that nobody has taken
}

// NewRulesFile makes one for rules that were read from path before.
func NewRulesFile(path, prefix string, present *Rules, metrics *Metrics, log *zap.Logger) *RulesFile {
	return &RulesFile{path: path, prefix: prefix, present: present, metrics: metrics, log: log, next: make(chan *Rules, 1)}
}

// Next gives new rules as they come, and skips what nobody has taken before there were newer ones.
func (f *RulesFile) Next() <-chan *Rules { return f.next }

// Watch looks at the file until ctx ends.
func (f *RulesFile) Watch(ctx context.Context) {
	ticker := pace.Every(reloadEvery)
	defer ticker.Stop()
	defer context.AfterFunc(ctx, ticker.Stop)()
	for {
		f.look()
		if !ticker.Wait() {
			return
		}
	}
}

func (f *RulesFile) look() {
	source, err := os.ReadFile(f.path)
	if err != nil {
		if !f.missing {
			f.missing = true
			f.refuse(err)
		}
		return
	}
	content := sha256.Sum256(source)
	if content == f.looked && !f.missing {
		return
	}
	f.looked, f.missing = content, false
	rules, err := ParseRules(source, f.prefix)
	if err != nil {
		f.refuse(err)
		return
	}
	f.metrics.refused.Store(false)
	if rules.fingerprint == f.present.fingerprint {
		return // comments, or nothing at all
	}
	f.present = rules
	f.metrics.reloads.WithLabelValues("taken").Inc()
	f.log.Info("the rules file has changed", zap.String("file", f.path))
	select {
	case <-f.next: // nobody has seen those
	default:
	}
	f.next <- rules
}

func (f *RulesFile) refuse(err error) {
	f.metrics.refused.Store(true)
	f.metrics.reloads.WithLabelValues("refused").Inc()
	f.log.Error("the rules file can't be used; the rules remain those from before", zap.String("file", f.path), zap.Error(err))
}

// runUntilOtherRules is runSession, which is ended when there are other rules: they come into force with the next session, whose note
// tells of the former ones, so that every key the new ones can name is deleted first.
func runUntilOtherRules(ctx context.Context, o *Options, m *Metrics, newSlot bool) error {
	session, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- runSession(session, o, m, newSlot) }()
	select {
	case err := <-done:
		return err
	case rules := <-o.NewRules:
		end()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			o.Logger.Warn("ended before the last progress was confirmed; it will be repeated", zap.Error(err))
		}
		o.Rules = rules
		return errOtherRules
	}
}
