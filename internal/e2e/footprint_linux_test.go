package e2e

import (
	"errors"
	"regexp"
	"testing"
)

var givenBack = regexp.MustCompile(`"gave back the pages of the program's file","kib":[1-9][0-9]*}`)

// Once started, both programs give back what only starting needed, and work as before.
func TestProgramsGiveBackWhatStartingTook(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI("LOG_LEVEL=debug")
	invalidator := s.startInvalidator("LOG_LEVEL=debug")
	s.seed("one")
	for _, p := range []*program{api, invalidator} {
		eventually(t, p.Name+" gives its pages back", func() error {
			if !givenBack.MatchString(p.Log.String()) {
				return errors.New("its log does not say so")
			}
			return nil
		})
	}
	api.waitHit(detailPath(1))
	s.psql("update materials set title = 'uno' where id = 1")
	api.waitFor(listPath, "the new title", hasTitle("uno"))
}
