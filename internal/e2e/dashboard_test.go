//go:build browser

package e2e

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// Sizes of a phone and of a desk.
var (
	phone = screen(360, 740, 2, true)
	desk  = screen(1180, 640, 1, false)
)

// Each situation has its screen: it says what is so, fits on a phone, can be read in the light and in the dark, and asks
// nobody but the process.
func TestDashboardOfEachSituation(t *testing.T) {
	browser := chromium(t)
	words := map[string][]string{
		"healthy":         {"Everything is true"},
		"standby":         {"by another process"},
		"catching up":     {"Catching up"},
		"resynchronising": {"is being deleted", "changes may have been missed"},
		"valkey down":     {"Valkey does not answer", "answered from Postgres"},
		"postgres down":   {"Postgres does not answer"},
		"nobody active":   {"Nobody follows the changes"},
	}
	colours := map[string]string{"healthy": "green", "standby": "green", "catching up": "yellow", "resynchronising": "yellow"}
	for _, one := range situations {
		t.Run(one.name, func(t *testing.T) {
			s := newStack(t)
			p := one.bring(s)
			view := open(t, browser, p.Base, desk)
			view.shows("#state", one.state)
			view.shows("#truth", words[one.state]...)
			want := colours[one.state]
			if want == "" {
				want = "red"
			}
			if got := evaluate[string](view, "document.body.dataset.colour"); got != want {
				t.Errorf("the colour is %s, want %s", got, want)
			}
			if title := evaluate[string](view, "document.title"); title != one.state+" · Walkey" {
				t.Errorf("the title is %q", title)
			}
			view.do(scheme("light"))
			light := view.ground()
			view.readable("light")
			view.do(scheme("dark"))
			dark := view.ground()
			view.readable("dark")
			if light <= 0.5 || dark >= 0.1 {
				t.Errorf("the luminance of the ground is %.2f in the light and %.2f in the dark", light, dark)
			}
			view.do(phone)
			view.fits()
			view.do(scheme("light"))
			view.fits()
			view.do(desk)
			view.fits()
			view.picture(strings.ReplaceAll(one.state, " ", "-"), false)
			view.do(chromedp.Navigate("about:blank")) // the stream ends before its process does
			view.calmBut("about:blank")
		})
	}
}

// What happens is on the page by itself: a row that is edited, the parts and their figures, the loss of the process and its
// coming back.
func TestDashboardFollows(t *testing.T) {
	s := newStack(t)
	api := s.startAPI()
	p := s.active()
	s.seed("one", "two")
	api.waitHit(detailPath(1))
	view := open(t, chromium(t), p.Base, desk)
	view.shows("#truth", "Everything is true")
	view.shows("#apis", strings.TrimPrefix(api.Base, "http://"), "yes")
	view.shows("#stream", "Confirmed", "0/", "lag")
	view.shows("#slot", "walkey", "this process")
	view.shows("#valkey", "ping", "evicted", "clients", "memory")
	view.shows("#who", "active for")
	view.shows("#happened li:first-child", "public.materials", "INSERT", "id=2", "bloodofjesus:material:2")

	s.psql("update materials set title = 'uno' where id = 1")
	view.shows("#happened li:first-child", "public.materials", "UPDATE", "id=1", "bloodofjesus:material:1", "ms", "1 was there")
	view.shows("#latency output", "max", "ms")
	s.psql("insert into materials (title) select 'x' from generate_series(1, 5000)")
	view.shows("#happened li:first-child", "INSERT × 5,000", "id=3", "more")
	s.psql("alter table materials add column more text default 'x'")
	view.shows("#happened li:first-child", "public.materials changed")
	view.shows("#rate output", "transactions", "keys")
	if n := evaluate[int](view, "document.querySelectorAll('#charts canvas').length"); n != 3 {
		t.Errorf("%d charts", n)
	}
	// A fresh page has what happened before.
	view.do(chromedp.Reload())
	view.shows("#happened", "UPDATE", "INSERT × 5,000", "public.materials changed")
	if n := evaluate[int](view, "document.querySelectorAll('#happened li').length"); n < 5 {
		t.Errorf("%d events after a reload", n)
	}
	view.calm()

	p.stop()
	view.shows("#state", "no contact")
	view.shows("#truth", "lost the invalidator")
	again := s.launch("invalidator", []string{p.at()})
	again.Base = p.Base
	view.shows("#truth", "Everything is true")
	// Not at once: the api says every two seconds whether it trusts the cache.
	eventually(t, "the colour is green", func() error {
		if got := evaluate[string](view, "document.body.dataset.colour"); got != "green" {
			return errors.New(got)
		}
		return nil
	})
	view.do(chromedp.Navigate("about:blank"))
}

// Whatever stands in a row is shown as it is, and never is a part of the page.
func TestDashboardEscapes(t *testing.T) {
	s := newStack(t)
	s.startAPI()
	s.psql("create table notes (id text primary key)")
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("tables: {notes: {keys: ['note:{id}']}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.active("RULES_FILE=" + rules)
	view := open(t, chromium(t), p.Base, phone)
	view.shows("#truth", "Everything is true")
	evil := `<img src=x onerror=alert(1)><script>alert(2)</script>"'&lt;</script>`
	s.psql("insert into notes values ($$" + evil + "$$)")
	view.shows("#happened li:first-child", evil, "note:"+evil)
	s.psql("insert into notes values (repeat('long ', 100)), (repeat('x', 500))")
	view.shows("#happened li:first-child", "INSERT × 2")
	if n := evaluate[int](view, "document.querySelectorAll('#happened :is(img, script), body > script').length"); n != 0 {
		t.Errorf("%d elements were made of text", n)
	}
	view.fits()
	view.do(chromedp.Reload())
	view.shows("#happened", evil)
	view.calm()
	view.do(chromedp.Navigate("about:blank"))
}

// fits checks that nothing has to be scrolled sideways.
func (p *tab) fits() {
	p.t.Helper()
	sizes := evaluate[[2]float64](p, "[document.scrollingElement.scrollWidth, innerWidth]")
	if sizes[0] > sizes[1] {
		p.t.Errorf("the page is %v wide on a screen of %v", sizes[0], sizes[1])
	}
}

// readable checks that texts stand out against what is behind them, as WCAG's AA asks for.
func (p *tab) readable(light string) {
	p.t.Helper()
	evaluate[int](p, stillness)
	texts := evaluate[map[string][2]string](p, `Object.fromEntries(["#sentence", "#state", "#reason", "#who", "#stream dt", "#stream dd", "#charts output", "h3"].map((selector) => {
		const element = document.querySelector(selector);
		if (!element || !element.innerText) return null;
		const clear = "rgba(0, 0, 0, 0)";
		let behind = element;
		while (behind && getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
		return [selector, [getComputedStyle(element).color, behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)"]];
	}).filter(Boolean))`)
	if len(texts) < 4 {
		p.t.Errorf("only %d texts are there", len(texts))
	}
	for selector, colours := range texts {
		a, b := luminance(p.t, colours[0]), luminance(p.t, colours[1])
		if contrast := (max(a, b) + 0.05) / (min(a, b) + 0.05); contrast < 4.5 {
			p.t.Errorf("in the %s, the contrast of %s is %.1f: %s on %s", light, selector, contrast, colours[0], colours[1])
		}
	}
}

// stillness ends what changes gradually.
const stillness = "document.getAnimations().map((a) => a.finish()).length"

// ground is the luminance of the page's ground, from 0 to 1.
func (p *tab) ground() float64 {
	p.t.Helper()
	return luminance(p.t, evaluate[string](p, "getComputedStyle(document.body).backgroundColor"))
}

// luminance is that of a colour "rgb(1, 2, 3)", as WCAG defines it.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	inner, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(colour, "rgba("), "rgb("), ")")
	parts := strings.Split(inner, ",")
	if !ok || len(parts) < 3 {
		t.Fatalf("no colour: %q", colour)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		value, err := strconv.ParseFloat(strings.TrimSpace(parts[i]), 64)
		if err != nil {
			t.Fatalf("no colour: %q", colour)
		}
		value /= 255
		if value <= 0.04045 {
			value /= 12.92
		} else {
			value = math.Pow((value+0.055)/1.055, 2.4)
		}
		sum += weight * value
	}
	return sum
}

// calmBut is calm, but lets one address be asked.
func (p *tab) calmBut(address string) {
	p.mu.Lock()
	kept := p.troubles[:0]
	for _, trouble := range p.troubles {
		if trouble != "a request to "+address {
			kept = append(kept, trouble)
		}
	}
	p.troubles = kept
	p.mu.Unlock()
	p.t.Helper()
	p.calm()
}
