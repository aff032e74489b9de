//go:build browser

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// hung is how long one step may take until the browser counts as hung.
const hung = 2 * time.Minute

// chromium gives the context of a browser of its own, which ends with the test. It can reach this machine and nothing else.
func chromium(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.UserDataDir(t.TempDir()),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which root can't have
	}
	if path := os.Getenv("WALKEY_CHROMIUM"); path != "" {
		options = append(options, chromedp.ExecPath(path))
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium (set WALKEY_CHROMIUM to its path if it is elsewhere): %v", err)
	}
	return ctx
}

// step is something that is done to a page.
type step = chromedp.Action[chromedp.Void]

// command is a step that sends one of the browser's own commands.
func command[P, R any](c cdp.Command[P, R], params P) step {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// tab is one page of a browser.
type tab struct {
	t    *testing.T
	ctx  context.Context
	home string // what every address that it asks begins with

	mu       sync.Mutex
	troubles []string // guarded by mu: what the console showed, and requests to elsewhere
}

// open shows a page in a tab of its own, which ends with the test.
func open(t *testing.T, browser context.Context, home string, before ...step) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx, home: home}
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	p.do(command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}))
	p.do(append(before, chromedp.Navigate(home+"/"))...)
	return p
}

// listen notes what must not be.
func (p *tab) listen(event any) {
	trouble := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if url := e.Request.URL; !strings.HasPrefix(url, p.home+"/") {
			trouble = "a request to " + url
		}
	case *runtime.EventExceptionThrown:
		trouble = fmt.Sprintf("an exception: %s, line %d of %s", e.ExceptionDetails.Text, e.ExceptionDetails.LineNumber, e.ExceptionDetails.URL)
	case *runtime.EventConsoleAPICalled:
		trouble = fmt.Sprintf("the console: %s", e.Type)
		for _, argument := range e.Args {
			trouble += " " + string(argument.Value)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			trouble = fmt.Sprintf("the log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	}
	if trouble == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.troubles = append(p.troubles, trouble)
}

// calm checks that the console showed nothing, and that no request went elsewhere.
func (p *tab) calm() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, trouble := range p.troubles {
		p.t.Errorf("the page has trouble: %s", trouble)
	}
}

// do acts on the page within a bound.
func (p *tab) do(steps ...step) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, hung)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// evaluate gives what an expression is on the page.
func evaluate[T any](p *tab, expression string) (value T) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, hung)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("JSON.stringify("+expression+")"))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		p.t.Fatalf("%s is %q: %v", expression, text, err)
	}
	return value
}

// shows waits until the text of the element holds all of the parts.
func (p *tab) shows(selector string, parts ...string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%s shows %q", selector, parts), func() error {
		text := evaluate[string](p, "document.querySelector("+quoted(selector)+")?.innerText ?? ''")
		for _, part := range parts {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(part)) {
				return errors.New(text)
			}
		}
		return nil
	})
}

func quoted(text string) string {
	literal, _ := json.Marshal(text) // a string always marshals
	return string(literal)
}

// screen sets the size of the window, and what kind of device it is.
func screen(width, height int64, scale float64, phone bool) step {
	return command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: scale, Mobile: phone})
}

// scheme has the system prefer "light" or "dark".
func scheme(name string) step {
	return command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}
