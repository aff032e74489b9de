//go:build browser

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// warmUp is how long the work goes on before the pictures are taken.
const warmUp = 5 * time.Minute

// The dashboard as it looks after a while of work, for the README: in the light, in the dark, on a phone.
func TestDashboardPictures(t *testing.T) {
	if os.Getenv("WALKEY_SCREENSHOTS") == "" {
		t.Skip("make screenshots takes the pictures")
	}
	s := newStack(t, "max_slot_wal_keep_size=1GB")
	s.startValkey("maxmemory=64mb", "maxmemory-policy=volatile-lru")
	apis := []*program{s.startAPI(), s.startAPI()}
	p := s.active()
	for _, title := range []string{"First steps", "Prayer for beginners", "Songs of the north", "On reading slowly"} {
		s.seed(title)
	}
	s.psql("insert into editors (username, password) values ('anna', 'x'), ('boris', 'x')")
	ctx, cancel := context.WithTimeout(t.Context(), warmUp+2*time.Minute)
	defer cancel()
	var work sync.WaitGroup
	for i, api := range apis {
		work.Go(func() {
			for ctx.Err() == nil {
				_, _ = api.try(detailPath(1 + rand.IntN(4))) // only the traffic matters
				_, _ = api.try(listPath)
				pause(ctx, time.Duration(15+35*i)*time.Millisecond)
			}
		})
	}
	work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			switch {
			case n%37 == 36:
				s.psql("update editors set language = case language when 'en' then 'ru' else 'en' end where username = 'anna'")
			case n%61 == 60:
				s.psql("update materials set icon_name = 'book'")
			default:
				s.psql(fmt.Sprintf("update materials set description = 'edition %d' where id = %d", n, 1+rand.IntN(4)))
			}
			pause(ctx, time.Duration(100+rand.IntN(900))*time.Millisecond)
		}
	})
	pause(ctx, warmUp)
	view := open(t, chromium(t), p.Base, screen(1180, 1010, 1, false), scheme("light"))
	view.shows("#truth", "Everything is true")
	view.shows("#apis", "yes")
	pause(ctx, 5*time.Second)
	view.picture("dashboard", false)
	view.do(scheme("dark"))
	view.picture("dashboard-dark", false)
	view.do(screen(390, 844, 2, true))
	view.picture("dashboard-phone", false)
	cancel()
	work.Wait()
	view.do(chromedp.Navigate("about:blank"))
}

// pause lets time go by.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// picture writes what is seen into the folder that WALKEY_SCREENSHOTS names, if it names one.
func (p *tab) picture(name string, whole bool) {
	p.t.Helper()
	folder := os.Getenv("WALKEY_SCREENSHOTS")
	if folder == "" {
		return
	}
	evaluate[int](p, stillness)
	take := chromedp.CaptureScreenshot()
	if whole {
		take = chromedp.FullScreenshot(100)
	}
	picture, err := chromedp.Run(p.ctx, take)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
